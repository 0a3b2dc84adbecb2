"""Compares images of the default model over HTTP, over gRPC, in a bare onnxruntime loop, and in diffusers.

All draw the same four images (prompt, seed, steps, guidance) on the same cores, and take turns in each round. The bare
loop is `builders.diffusion.reference_pipeline` over the installed engines, with diffusers' scheduler, in this process.
diffusers runs the same weights on PyTorch, with all cores and with one core; ratios are to the better of the two. Then
follow eight requests for one image each, first one after the other and then at once. Values are medians over the
rounds; ratios are medians of the rounds' ratios.
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
"""Most by which a pixel of the same image may differ between two systems, of 255."""

Generate = Callable[[int], list[Any]]
"""Generates `IMAGES` images, whose seeds are this one and those after it."""


def over_http(url: str) -> Generate:
    """Generate images with one request to the gateway."""
    http = httpx.Client(base_url=url, timeout=300, trust_env=False)
    return lambda seed: generate(http, seed, IMAGES)


def generate(http: httpx.Client, seed: int, images: int) -> list[Any]:
    """Generate images over HTTP. Raises `AssertionError` if the status is not 200."""
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
    return [Image.open(io.BytesIO(base64.b64decode(image["b64_json"]))) for image in response.json()["data"]]


def through_triton(url: str) -> Generate:
    """Generate images with one request over gRPC."""
    import grpc
    from tritonclient.grpc import service_pb2 as pb
    from tritonclient.grpc import service_pb2_grpc as rpc

    options = [("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]
    stub = rpc.GRPCInferenceServiceStub(grpc.insecure_channel(url, options=options))

    def generate_over_grpc(seed: int) -> list[Any]:
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
        images = {}
        for message in stub.ModelStreamInfer(iter([request])):
            assert not message.error_message, message.error_message
            answer = message.infer_response
            names = [output.name for output in answer.outputs]
            outputs = dict(zip(names, answer.raw_output_contents, strict=True))
            if "image" in outputs:
                index = int(np.frombuffer(outputs["index"], np.int32)[0])
                images[index] = Image.open(io.BytesIO(outputs["image"][4:]))
        return [images[index] for index in sorted(images)]

    return generate_over_grpc


def onnxruntime_loop(repository: Path) -> Generate:
    """Generate images in this process with a plain loop over the installed engines."""
    from builders.diffusion.reference_pipeline import Engines, ImageRequest, generate_images

    engines = Engines(repository / IMAGE_MODEL / "1", lambda name: repository / name / "1" / "model.onnx")

    def generate_in_process(seed: int) -> list[Any]:
        # The images of the loop share one random generator, ours have one each: only the first image is the same.
        request = ImageRequest(PROMPT, None, GUIDANCE, STEPS, SIZE, SIZE, IMAGES, seed)
        pixels = (generate_images(engines, request).images * 255).round().astype(np.uint8)
        return [Image.fromarray(image.transpose(1, 2, 0)) for image in pixels]

    return generate_in_process


def diffusers(threads: int) -> Generate:
    """Generate images with the diffusers pipeline that the engines were built from, on PyTorch."""
    import torch

    from training.shapes.networks import load_pipeline

    pipeline = load_pipeline()

    def generate_with_diffusers(seed: int) -> list[Any]:
        torch.set_num_threads(threads)
        generators = [torch.Generator().manual_seed(seed + number) for number in range(IMAGES)]
        images: list[Any] = pipeline(
            PROMPT,
            height=SIZE,
            width=SIZE,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            num_images_per_prompt=IMAGES,
            generator=generators,
        ).images
        return images

    return generate_with_diffusers


def measure(systems: dict[str, Generate], rounds: int) -> dict[str, list[float]]:
    """Return the seconds for `IMAGES` images in each round, by system. A warm-up round comes first.

    Raises `AssertionError` if two systems generate different images.
    """
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    for number in range(rounds + 1):
        order = list(systems)[number % len(systems) :] + list(systems)[: number % len(systems)]
        first = {}
        for name in order:
            started = time.perf_counter()
            images = systems[name](number)
            if number:
                seconds[name].append(time.perf_counter() - started)
            assert len(images) == IMAGES
            first[name] = np.asarray(images[0].convert("RGB")).astype(int)
        for name in order:
            difference = np.abs(first[name] - first[order[0]]).max()
            assert difference <= MAX_PIXEL_DIFFERENCE, f"{name} differs from {order[0]} by {difference}"
    return seconds


def measure_bursts(url: str, rounds: int) -> tuple[list[float], list[float], float]:
    """Return the seconds for `BURST` requests in sequence, and at once, in each round.

    The third value is the longest latency over the median latency of the requests at once.
    """
    http = httpx.Client(base_url=url, timeout=300, trust_env=False)
    sequential, concurrent, unfairness = [], [], []

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
            latencies = list(pool.map(timed, range(BURST)))
            if number:
                sequential.append(between - started)
                concurrent.append(time.perf_counter() - between)
                unfairness.append(max(latencies) / statistics.median(latencies))
    return sequential, concurrent, statistics.median(unfairness)


def measure_disconnect(running: Deployment) -> tuple[float, float]:
    """Return the seconds of one step of `IMAGES` images, and from a disconnect until the denoiser has no rows."""
    http = httpx.Client(trust_env=False)

    def metric(name: str) -> float:
        prefix = f'diffusion_{name}{{model="{IMAGE_MODEL}"}} '
        text = http.get(running.metrics_url).text
        return next((float(line[len(prefix) :]) for line in text.splitlines() if line.startswith(prefix)), 0.0)

    body = {"model": IMAGE_MODEL, "prompt": PROMPT, "n": IMAGES, "steps": 100, "stream": True, "partial_images": 3}
    with httpx.stream("POST", f"{running.gateway_url}/v1/images/generations", json=body, trust_env=False) as response:
        assert response.status_code == 200
        while not metric("rows_active"):
            time.sleep(0.005)
        runs, started = metric("runs_total"), time.perf_counter()
        time.sleep(1.5)
        step = (time.perf_counter() - started) / (metric("runs_total") - runs)
        assert metric("rows_active") == IMAGES
        disconnected = time.perf_counter()
    while metric("rows_active"):
        time.sleep(0.002)
    return step, time.perf_counter() - disconnected


def run(repository: Path, rounds: int) -> list[Table]:
    """Start Triton and the gateway, measure all systems, and return the tables."""
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        served = Path(folder) / "repository"
        served.mkdir()
        for part in PARTS:  # Triton serves these models alone, so that no other model uses the cores
            (served / f"{IMAGE_MODEL}{part}").symlink_to((repository / f"{IMAGE_MODEL}{part}").resolve())
        with deploy(served, IMAGE_MODEL) as running:
            systems = {
                "over HTTP": over_http(running.gateway_url),
                "through Triton": through_triton(running.triton_url),
                "bare onnxruntime loop": onnxruntime_loop(served),
                "diffusers, all cores": diffusers(cores),
                "diffusers, one core": diffusers(1),
            }
            seconds = measure(systems, rounds)
            sequential, concurrent, unfairness = measure_bursts(running.gateway_url, rounds)
            step, delay = measure_disconnect(running)
    return tables(seconds, sequential, concurrent, unfairness, step, delay)


def tables(
    seconds: dict[str, list[float]],
    sequential: list[float],
    concurrent: list[float],
    unfairness: float,
    step: float,
    delay: float,
) -> list[Table]:
    """Return the table of rates and the table of ratios. `step` and `delay` are those of `measure_disconnect`."""

    def ratio(slower: list[float], faster: list[float]) -> float:
        return statistics.median(one / other for one, other in zip(slower, faster, strict=True))

    peers = [name for name in seconds if name.startswith("diffusers")]
    peer = min(peers, key=lambda name: statistics.median(seconds[name]))
    loop = seconds["bare onnxruntime loop"]
    rates = [(name, IMAGES / statistics.median(rounds)) for name, rounds in seconds.items()]
    rates.append((f"{BURST} requests, one after the other", BURST / statistics.median(sequential)))
    rates.append((f"{BURST} requests at once", BURST / statistics.median(concurrent)))
    ratios = [
        ("images/s over HTTP ÷ the better diffusers", ratio(seconds[peer], seconds["over HTTP"])),
        ("time through Triton ÷ bare loop", ratio(seconds["through Triton"], loop)),
        ("time over HTTP ÷ bare loop", ratio(seconds["over HTTP"], loop)),
        ("images/s at once ÷ one after the other", ratio(sequential, concurrent)),
        ("longest latency ÷ median latency, at once", unfairness),
    ]
    note = (
        f"A step of {IMAGES} images takes {1000 * step:.0f} ms. The denoiser had no rows {1000 * delay:.0f} ms after a"
        " disconnect, which includes the delay of the metrics."
    )
    return [
        Table(
            f"{IMAGES} images a request, {STEPS} steps",
            (Column("system"), Column("rate", "images/s", 2)),
            rates,
            (note,),
            (Plot("system", ("rate",), kind="bars"),),
            versions={name: version(name) for name in ("diffusers", "torch", "onnxruntime")},
            details={"seconds": seconds, "one after the other": sequential, "at once": concurrent},
        ),
        Table("Ratios", (Column(""), Column("ratio", digits=3)), ratios),
    ]
