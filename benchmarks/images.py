"""Pictures a second of the default model: over HTTP, through Triton alone, a bare onnxruntime loop, and diffusers.

All draw the same four pictures (prompt, seed, steps, guidance) in turns, round by round, on the same cores. The bare
loop is `builders.diffusion.reference_pipeline` over the installed engines, with diffusers' scheduler, in this
process; diffusers runs
the same weights on PyTorch, with all cores and with one, and the better of the two is what we are held to. Then eight
requests for one picture each, one after the other and all at once. Figures are medians over the rounds; ratios are
medians of the rounds' ratios.
"""

import base64
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from benchmarks.deployment import Deployment, deploy
from benchmarks.models import IMAGE_MODEL
from benchmarks.tables import Column, Plot, Table

PARTS = ("", "-denoiser", "-text-encoder", "-vae-encoder", "-vae-decoder")
PROMPT = "a large red star above a small blue ring on a white background"
SIZE, STEPS, GUIDANCE, IMAGES, BURST = 128, 20, 3.0, 4, 8
MAX_PIXEL_DIFFERENCE = 2
"""Steps of 255 by which a pixel of two ways to the same picture may differ."""

Draw = Callable[[int], list[Any]]
"""Draws `IMAGES` pictures that begin with a seed."""


def over_http(url: str) -> Draw:
    """One request to the gateway."""
    http = httpx.Client(base_url=url, timeout=300, trust_env=False)
    return lambda seed: generate(http, seed, IMAGES)


def generate(http: httpx.Client, seed: int, images: int) -> list[Any]:
    """Draw over HTTP."""
    body = {
        "model": IMAGE_MODEL,
        "prompt": PROMPT,
        "n": images,
        "seed": seed,
        "steps": STEPS,
        "guidance_scale": GUIDANCE,
        "response_format": "b64_json",
    }
    response = http.post("/v1/images/generations", json=body)
    assert response.status_code == 200, response.text
    return [Image.open(io.BytesIO(base64.b64decode(each["b64_json"]))) for each in response.json()["data"]]


def through_triton(url: str) -> Draw:
    """One request over gRPC."""
    import grpc
    from tritonclient.grpc import service_pb2 as pb
    from tritonclient.grpc import service_pb2_grpc as rpc

    options = [("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]
    stub = rpc.GRPCInferenceServiceStub(grpc.insecure_channel(url, options=options))

    def draw(seed: int) -> list[Any]:
        request = pb.ModelInferRequest(model_name=IMAGE_MODEL)
        encoded = PROMPT.encode()
        values = {
            "prompt": ("BYTES", len(encoded).to_bytes(4, "little") + encoded),
            "num_images": ("INT32", np.int32(IMAGES).tobytes()),
            "steps": ("INT32", np.int32(STEPS).tobytes()),
            "guidance_scale": ("FP32", np.float32(GUIDANCE).tobytes()),
            "seed": ("UINT64", np.uint64(seed).tobytes()),
        }
        for name, (kind, raw) in values.items():
            request.inputs.add(name=name, datatype=kind, shape=[1])
            request.raw_input_contents.append(raw)
        found = {}
        for message in stub.ModelStreamInfer(iter([request])):
            assert not message.error_message, message.error_message
            answer = message.infer_response
            raw = {o.name: r for o, r in zip(answer.outputs, answer.raw_output_contents, strict=True)}
            if "image" in raw:
                number = int(np.frombuffer(raw["index"], np.int32)[0])
                found[number] = Image.open(io.BytesIO(raw["image"][4:]))
        return [found[number] for number in sorted(found)]

    return draw


def onnxruntime_loop(repository: Path) -> Draw:
    """The plainest loop over the installed engines."""
    from builders.diffusion.reference_pipeline import Engines, ImageRequest, generate_images

    engines = Engines(repository / IMAGE_MODEL / "1", lambda name: repository / name / "1" / "model.onnx")

    def one(seed: int) -> list[Any]:
        # Its pictures share one generator, ours have one each: only the first is the same picture.
        wanted = ImageRequest(PROMPT, None, GUIDANCE, STEPS, SIZE, SIZE, IMAGES, seed)
        pixels = (generate_images(engines, wanted).images * 255).round().astype(np.uint8)
        return [Image.fromarray(each.transpose(1, 2, 0)) for each in pixels]

    return one


def diffusers(threads: int) -> Draw:
    """The pipeline that the engines were built from, on PyTorch."""
    import torch

    from training.shapes.networks import load_pipeline

    pipeline = load_pipeline()

    def one(seed: int) -> list[Any]:
        torch.set_num_threads(threads)
        generators = [torch.Generator().manual_seed(seed + number) for number in range(IMAGES)]
        drawn: list[Any] = pipeline(
            PROMPT,
            height=SIZE,
            width=SIZE,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            num_images_per_prompt=IMAGES,
            generator=generators,
        ).images
        return drawn

    return one


def measure(ways: dict[str, Draw], rounds: int) -> dict[str, list[float]]:
    """Seconds for `IMAGES` pictures, by way; the first round only warms up and compares what is drawn."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        order = list(ways)[number % len(ways) :] + list(ways)[: number % len(ways)]
        first = {}
        for name in order:
            started = time.perf_counter()
            pictures = ways[name](number)
            if number:
                seconds[name].append(time.perf_counter() - started)
            assert len(pictures) == IMAGES
            first[name] = np.asarray(pictures[0].convert("RGB")).astype(int)
        for name in order:
            difference = np.abs(first[name] - first[order[0]]).max()
            assert difference <= MAX_PIXEL_DIFFERENCE, f"{name} differs from {order[0]} by {difference}"
    return seconds


def measure_bursts(url: str, rounds: int) -> tuple[list[float], list[float], float]:
    """Seconds for `CROWD` requests one after the other and at once, and the longest wait ÷ the median one at once."""
    http = httpx.Client(base_url=url, timeout=300, trust_env=False)
    alone, together, unfair = [], [], []

    def timed(seed: int) -> float:
        started = time.perf_counter()
        generate(http, seed, 1)
        return time.perf_counter() - started

    with ThreadPoolExecutor(BURST) as pool:
        for number in range(rounds + 1):
            started = time.perf_counter()
            for seed in range(BURST):
                timed(seed)
            between = time.perf_counter()
            waits = list(pool.map(timed, range(BURST)))
            if number:
                alone.append(between - started)
                together.append(time.perf_counter() - between)
                unfair.append(max(waits) / statistics.median(waits))
    return alone, together, statistics.median(unfair)


def measure_disconnect(running: Deployment) -> tuple[float, float]:
    """Seconds that one step of four rows takes, and seconds from a hang-up until the denoiser has no rows."""
    http = httpx.Client(trust_env=False)

    def figure(name: str) -> float:
        start = f'diffusion_{name}{{model="{IMAGE_MODEL}"}} '
        text = http.get(running.metrics_url).text
        return next((float(line[len(start) :]) for line in text.splitlines() if line.startswith(start)), 0.0)

    body = {"model": IMAGE_MODEL, "prompt": PROMPT, "n": IMAGES, "steps": 100, "stream": True, "partial_images": 3}
    with httpx.stream("POST", f"{running.gateway_url}/v1/images/generations", json=body, trust_env=False) as response:
        assert response.status_code == 200
        while not figure("rows_active"):
            time.sleep(0.005)
        runs, started = figure("runs_total"), time.perf_counter()
        time.sleep(1.5)
        step = (time.perf_counter() - started) / (figure("runs_total") - runs)
        assert figure("rows_active") == IMAGES
        hung_up = time.perf_counter()
    while figure("rows_active"):
        time.sleep(0.002)
    return step, time.perf_counter() - hung_up


def run(repository: Path, rounds: int) -> list[Table]:
    """Start everything, measure, and return the tables."""
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        served = Path(folder) / "repository"
        served.mkdir()
        for part in PARTS:  # nothing else shall run meanwhile
            (served / f"{IMAGE_MODEL}{part}").symlink_to((repository / f"{IMAGE_MODEL}{part}").resolve())
        with deploy(served, IMAGE_MODEL) as running:
            ways = {
                "over HTTP": over_http(running.gateway_url),
                "through Triton": through_triton(running.triton_url),
                "bare onnxruntime loop": onnxruntime_loop(served),
                "diffusers, all cores": diffusers(cores),
                "diffusers, one core": diffusers(1),
            }
            seconds = measure(ways, rounds)
            alone, together, unfair = measure_bursts(running.gateway_url, rounds)
            step, late = measure_disconnect(running)
    return tables(seconds, alone, together, unfair, step, late)


def tables(
    seconds: dict[str, list[float]], alone: list[float], together: list[float], unfair: float, step: float, late: float
) -> list[Table]:
    """Rates, ratios, and what a crowd gets."""

    def ratio(slower: list[float], faster: list[float]) -> float:
        return statistics.median(one / other for one, other in zip(slower, faster, strict=True))

    peer = min((name for name in seconds if name.startswith("diffusers")), key=lambda n: statistics.median(seconds[n]))
    loop = seconds["bare onnxruntime loop"]
    rates = [(name, IMAGES / statistics.median(each)) for name, each in seconds.items()]
    rates.append((f"{BURST} requests, one after the other", BURST / statistics.median(alone)))
    rates.append((f"{BURST} requests at once", BURST / statistics.median(together)))
    ratios = [
        ("pictures/s over HTTP ÷ the better diffusers", ratio(seconds[peer], seconds["over HTTP"])),
        ("time through Triton ÷ bare loop", ratio(seconds["through Triton"], loop)),
        ("time over HTTP ÷ bare loop", ratio(seconds["over HTTP"], loop)),
        ("pictures/s at once ÷ one after the other", ratio(alone, together)),
        ("longest wait ÷ median wait, at once", unfair),
    ]
    note = (
        f"A step of {IMAGES} pictures takes {1000 * step:.0f} ms; after a hang-up the denoiser had no rows"
        f" {1000 * late:.0f} ms later, which includes what the metrics are behind."
    )
    return [
        Table(
            f"{IMAGES} pictures a request, {STEPS} steps",
            (Column("way"), Column("rate", "pictures/s", 2)),
            rates,
            (note,),
            (Plot("way", ("rate",), kind="bars"),),
            versions={name: version(name) for name in ("diffusers", "torch", "onnxruntime")},
            details={"seconds": seconds, "one after the other": alone, "at once": together},
        ),
        Table("Ratios", (Column(""), Column("ratio", digits=3)), ratios),
    ]
