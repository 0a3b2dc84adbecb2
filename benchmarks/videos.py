"""Compares videos of the default model over HTTP, over gRPC, in a bare onnxruntime loop, and in diffusers.

All make the same four videos (prompt, steps, guidance) on the same cores, and take turns in each round. The gateway and
Triton get four requests at once; their time includes the encoding of the MP4 files, which the other systems do not do,
and that of the gateway the way of a task: it is created, stored, asked for and downloaded. The bare loop is
`builders.video.reference_pipeline` over the installed engines, with diffusers' scheduler, in this process. diffusers
runs the same weights on PyTorch, with all cores and with one core; ratios are to the better of the two. Then follows
one video at a time, through Triton and in the loop. Values are medians over the rounds; ratios are medians of the
rounds' ratios.
"""

import io
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.deployment import deploy, only
from benchmarks.models import VIDEO_MODEL
from benchmarks.tables import Column, Plot, Table, Threshold

PARTS = ("text-encoder", "denoiser", "vae-encoder-first", "vae-encoder-next", "vae-decoder-first", "vae-decoder-next")
PROMPT = "a red circle moves to the right on a white background"
SIDE, FRAMES, FPS, STEPS, GUIDANCE, VIDEOS = 64, 17, 8, 20, 3.0, 4
POLL_SECONDS = 0.02
MAX_BRIGHTNESS_DIFFERENCE = 3.0
"""Most by which the brightness of a pixel may differ between two systems on average, of 255: an MP4 is not exact."""
HTTP, TRITON, LOOP = "over HTTP", "through Triton", "bare onnxruntime loop"
LUMA = (0.2126, 0.7152, 0.0722)

Generate = Callable[[int, int], Any]
"""Generates videos, as many as the second argument says, whose seeds are the first and those after it. Returns the
brightness of the first, float[frames, height, width]."""


def over_http(url: str) -> Generate:
    """Generate videos with tasks at once, one for each, and download them."""
    http = httpx.Client(base_url=url, timeout=300, trust_env=False)

    def request_video(seed: int) -> bytes:
        body = {
            "model": VIDEO_MODEL,
            "prompt": PROMPT,
            "seconds": f"{(FRAMES - 1) / FPS:g}",
            "fps": FPS,
            "size": f"{SIDE}x{SIDE}",
            "steps": STEPS,
            "guidance_scale": GUIDANCE,
            "seed": seed,
            "quality": 100,
        }
        response = http.post("/v1/videos", json=body)
        while (video := response.json())["status"] in ("queued", "in_progress"):
            time.sleep(POLL_SECONDS)
            response = http.get(f"/v1/videos/{video['id']}")
        assert video["status"] == "completed", video
        content = http.get(f"/v1/videos/{video['id']}/content")
        assert content.status_code == 200, content.text
        return content.content

    return at_once(request_video)


def at_once(request_video: Callable[[int], bytes]) -> Generate:
    """Generate videos by calls of `request_video` with their seeds, all at once."""

    def generate(seed: int, count: int) -> Any:
        with ThreadPoolExecutor(count) as pool:
            videos = list(pool.map(request_video, range(seed, seed + count)))
        return brightness(videos[0])

    return generate


def through_triton(url: str) -> Generate:
    """Generate videos with requests at once over gRPC, one for each."""
    import grpc
    from tritonclient.grpc import service_pb2 as pb
    from tritonclient.grpc import service_pb2_grpc as rpc

    options = [("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]
    stub = rpc.GRPCInferenceServiceStub(grpc.insecure_channel(url, options=options))

    def request_video(seed: int) -> bytes:
        request = pb.ModelInferRequest(model_name=VIDEO_MODEL)
        encoded = PROMPT.encode()
        values = {
            "prompt": ("BYTES", len(encoded).to_bytes(4, "little") + encoded),
            **{name: ("INT32", np.int32(value).tobytes()) for name, value in integers().items()},
            "guidance_scale": ("FP32", np.float32(GUIDANCE).tobytes()),
            "seed": ("UINT64", np.uint64(seed).tobytes()),
        }
        for name, (kind, raw) in values.items():
            request.inputs.add(name=name, datatype=kind, shape=[1])
            request.raw_input_contents.append(raw)
        video = b""
        for message in stub.ModelStreamInfer(iter([request])):
            assert not message.error_message, message.error_message
            names = [output.name for output in message.infer_response.outputs]
            outputs = dict(zip(names, message.infer_response.raw_output_contents, strict=True))
            video = outputs.get("video", b"")[4:]
        return video

    return at_once(request_video)


def integers() -> dict[str, int]:
    """Return the integer inputs of a request."""
    return {"width": SIDE, "height": SIDE, "num_frames": FRAMES, "steps": STEPS, "quality": 100}


def brightness(video: bytes) -> Any:
    """Decode an MP4 to float[frames, height, width], 0 to 255."""
    import av

    with av.open(io.BytesIO(video), "r") as container:
        frames: Any = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    return frames @ LUMA


def onnxruntime_loop(repository: Path) -> Generate:
    """Generate videos in this process with a plain loop over the installed engines, in one batch."""
    import torch

    from builders.diffusion.reference_pipeline import Engines
    from builders.video.reference_pipeline import VideoRequest, generate_videos

    engines = Engines(repository / VIDEO_MODEL / "1", lambda name: repository / name / "1" / "model.onnx")

    def generate(seed: int, count: int) -> Any:
        torch.set_num_threads(1)  # only the scheduler needs PyTorch; its threads would keep cores from the engines
        # The videos of the loop share one random generator, ours have one each: only the first video is the same.
        request = VideoRequest(PROMPT, "", GUIDANCE, STEPS, SIDE, SIDE, FRAMES, count, seed)
        return np.moveaxis(generate_videos(engines, request).videos[0], 0, -1) * 255 @ LUMA

    return generate


def diffusers(threads: int) -> Generate:
    """Generate videos with the diffusers pipeline that the engines were built from, on PyTorch, in one batch."""
    import torch

    from training.moving_shapes.networks import load_pipeline

    pipeline = load_pipeline()
    tokens = min(pipeline.tokenizer.model_max_length, 512)

    def generate(seed: int, count: int) -> Any:
        torch.set_num_threads(threads)
        frames = pipeline(
            PROMPT,
            height=SIDE,
            width=SIDE,
            num_frames=FRAMES,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            num_videos_per_prompt=count,
            generator=[torch.Generator().manual_seed(seed + number) for number in range(count)],
            max_sequence_length=tokens,
            output_type="np",
        ).frames
        return frames[0] * 255 @ LUMA

    return generate


def measure(systems: dict[str, Generate], rounds: int, count: int) -> dict[str, list[float]]:
    """Return the seconds for `count` videos in each round, by system. A warm-up round comes first.

    Raises `AssertionError` if two systems generate different videos.
    """
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    for number in range(rounds + 1):
        order = list(systems)[number % len(systems) :] + list(systems)[: number % len(systems)]
        first = {}
        for name in order:
            started = time.perf_counter()
            first[name] = systems[name](number, count)
            if number:
                seconds[name].append(time.perf_counter() - started)
        for name in order:
            assert first[name].shape == (FRAMES, SIDE, SIDE)
            difference = np.abs(first[name] - first[order[0]]).mean()
            assert difference <= MAX_BRIGHTNESS_DIFFERENCE, f"{name} differs from {order[0]} by {difference}"
    return seconds


def run(repository: Path, rounds: int) -> list[Table]:
    """Start Triton and the gateway, measure all systems, and return the tables."""
    cores = len(os.sched_getaffinity(0))
    models = (VIDEO_MODEL, *(f"{VIDEO_MODEL}-{part}" for part in PARTS))
    with only(repository, models) as served, deploy(served, VIDEO_MODEL) as running:
        systems = {
            HTTP: over_http(running.gateway_url),
            TRITON: through_triton(running.triton_url),
            LOOP: onnxruntime_loop(served),
            "diffusers, all cores": diffusers(cores),
            "diffusers, one core": diffusers(1),
        }
        seconds = measure(systems, rounds, VIDEOS)
        single = measure({name: systems[name] for name in (TRITON, LOOP)}, rounds, 1)
    return tables(seconds, single)


def tables(seconds: dict[str, list[float]], single: dict[str, list[float]]) -> list[Table]:
    """Return the table of rates and the table of ratios. `single` are the seconds of one video."""

    def ratio(slower: list[float], faster: list[float]) -> float:
        return statistics.median(one / other for one, other in zip(slower, faster, strict=True))

    peers = [name for name in seconds if name.startswith("diffusers")]
    peer = min(peers, key=lambda name: statistics.median(seconds[name]))
    rates = [(name, VIDEOS / statistics.median(rounds)) for name, rounds in seconds.items()]
    rates += [(f"{name}, one video", 1 / statistics.median(rounds)) for name, rounds in single.items()]
    speed, overhead = ratio(seconds[peer], seconds[HTTP]), ratio(seconds[TRITON], seconds[LOOP])
    thresholds = (
        Threshold("videos/s over HTTP ÷ the better diffusers", speed, 1.3),
        Threshold(f"time through Triton ÷ bare loop, {VIDEOS} videos", overhead, 1.05, "at most"),
    )
    ratios = [(threshold.name, threshold.value) for threshold in thresholds]
    ratios.append(("videos/s through Triton ÷ the better diffusers", ratio(seconds[peer], seconds[TRITON])))
    ratios.append(("time through Triton ÷ bare loop, one video", ratio(single[TRITON], single[LOOP])))
    return [
        Table(
            f"{VIDEOS} videos of {FRAMES} frames of {SIDE} x {SIDE} pixels, {STEPS} steps",
            (Column("system"), Column("rate", "videos/s", 3)),
            rates,
            ("Over HTTP and through Triton, the videos are four requests at once, and are encoded as MP4.",),
            (Plot("system", ("rate",), kind="bars"),),
            versions={name: version(name) for name in ("diffusers", "torch", "onnxruntime", "av")},
            details={"seconds": seconds, "one video": single},
        ),
        Table("Ratios", (Column(""), Column("ratio", digits=3)), ratios, thresholds=thresholds),
    ]
