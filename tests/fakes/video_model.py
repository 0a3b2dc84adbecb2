"""Scripted video models: MP4 files of the requested size and length, in one colour for each seed.

The first frame of a video is the picture of the request, where it has one.
"""

import asyncio
import io
import tempfile
from collections.abc import AsyncIterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, UnidentifiedImageError
from tritonclient.grpc import service_pb2 as pb

from tests.fakes.image_model import DEFAULT_SEED, color_of_seed, one_value, tensor_response
from tests.fakes.scripted_model import Fail, FilmVideo, ScriptedModel
from tests.fakes.triton_messages import InferCall


@lru_cache(maxsize=64)
def video_file(
    size: tuple[int, int] = (64, 64),
    num_frames: int = 17,
    fps: int = 8,
    *,
    seed: int = DEFAULT_SEED,
    container: str = "mp4",
    codec: str = "libx264",
    first: bytes | None = None,
    audio_only: bool = False,
) -> bytes:
    """Return a video: each frame has the colour of the seed, and a white bar that moves to the right.

    `first` is an encoded picture, the first frame. With `audio_only` the file has silence and no video.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video"  # FFmpeg moves the index to the front of real files only
        _write(path, size, num_frames, fps, seed, container, codec, first, audio_only)
        return path.read_bytes()


def _write(
    path: Path,
    size: tuple[int, int],
    num_frames: int,
    fps: int,
    seed: int,
    container: str,
    codec: str,
    first: bytes | None,
    audio_only: bool,
) -> None:
    options = {"movflags": "faststart"} if container == "mp4" else {}
    with av.open(path, "w", format=container, options=options) as output:
        if audio_only:
            sound = output.add_stream("aac", rate=16_000)
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.rate = 16_000
            output.mux(sound.encode(silence))
            output.mux(sound.encode(None))
            return
        stream: Any = output.add_stream(codec, rate=fps)
        stream.width, stream.height = size
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        stream.codec_context.thread_count = 1
        for index in range(num_frames):
            if first and not index:
                pixels = np.asarray(Image.open(io.BytesIO(first)).convert("RGB").resize(size))
            else:
                pixels = np.full((size[1], size[0], 3), color_of_seed(seed), np.uint8)
                bar = (size[0] - 4) * index // max(1, num_frames - 1)
                pixels[:, bar : bar + 4] = 255
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        output.mux(stream.encode(None))


@lru_cache(maxsize=1)
def noise_video(size: tuple[int, int] = (1280, 720), num_frames: int = 9, fps: int = 8) -> bytes:
    """Return a video of noise, whose frames as JPEG files are as large as any."""
    random = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video"
        with av.open(path, "w", format="matroska") as output:
            stream: Any = output.add_stream("mjpeg", rate=fps, options={"qmin": "2", "qmax": "2"})
            stream.width, stream.height = size
            stream.pix_fmt = "yuvj444p"
            for _ in range(num_frames):
                pixels = random.integers(0, 256, (size[1], size[0], 3), np.uint8)
                output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            output.mux(stream.encode(None))
        return path.read_bytes()


def _fault(call: InferCall) -> str | None:
    """Return the error of the backend for invalid pictures."""
    size = (int(one_value(call, "width", 64)), int(one_value(call, "height", 64)))
    for name in ("image", "frames"):
        for data in call.tensors.get(name, []):
            try:
                with Image.open(io.BytesIO(data)) as picture:
                    if picture.size != size:
                        return f"[invalid_value:{name}] A picture has {picture.size} pixels, the video {size}."
            except UnidentifiedImageError:
                return f"[invalid_value:{name}] This is no picture."
    count = len(call.tensors.get("frames", []))
    if count and count != int(one_value(call, "num_frames", 17)):
        return f"[invalid_value:frames] There are {count} frames."
    return None


async def generate_video(
    model: ScriptedModel, call: InferCall, step: FilmVideo
) -> AsyncIterator[pb.ModelInferResponse | Fail]:
    """Yield the progress of each step, then the video."""
    if fault := _fault(call):
        yield Fail(fault)
        return
    for at in range(1, step.steps + 1):
        await asyncio.sleep(step.pause)
        yield tensor_response(model, call, progress=("FP32", at / step.steps))
    width, height = (int(one_value(call, name, 64)) for name in ("width", "height"))
    count, fps = int(one_value(call, "num_frames", 17)), int(one_value(call, "fps", 8))
    seed = int(one_value(call, "seed", DEFAULT_SEED))
    first = call.tensors.get("image", [None])[0]
    data = video_file((width, height), count, fps, seed=seed, first=first)
    data += (b"\0\0\0\x08free" * (step.padding // 8 + 1))[: step.padding]
    numbers: dict[str, Any] = {"width": width, "height": height, "num_frames": count, "fps": fps}
    for number in range(step.num_videos):
        yield tensor_response(
            model,
            call,
            final=number == step.num_videos - 1,
            video=("BYTES", b"no video" if step.is_garbled else data),
            seed=("UINT64", seed),
            **{name: ("INT32", value) for name, value in numbers.items()},
        )
    if not step.num_videos:
        yield tensor_response(model, call, final=True)
