"""A frontend with a tiny Wan pipeline. Its components run in PyTorch, without export and without Triton."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image

from backends.diffusion.loading import load_pipeline
from backends.diffusion.request import VideoRequest
from backends.diffusion.stats import Stats
from backends.diffusion.video.frontend import VideoFrontend
from backends.diffusion.video.mp4_file import find_encoders
from builders.video import networks, pipeline_json
from builders.video.parts import pipeline_parts
from builders.video.read_pipeline import read
from tests.fakes.tiny_animatediff import make_animatediff_pipeline
from tests.fakes.tiny_wan import make_wan_pipeline
from tests.unit.diffusion.tiny_pipeline import NAME, BaseRecordingSender, TorchComponents

# The tensors are too small to split among threads.
torch.set_num_threads(1)

WIDTH, HEIGHT = 64, 32
PARAMETERS = {
    "default_size": [WIDTH, HEIGHT],
    "max_size": 128,
    "default_steps": 3,
    "max_steps": 50,
    "default_num_frames": 5,
    "max_num_frames": 33,
    "default_fps": 8,
    "default_guidance": 3.0,
}
REFERENCES = {"animatediff": '["frames"]', "t2v": '["frames"]', "i2v": '["image"]'}
"""The references that a pipeline takes, for those that do not take both a picture and frames."""


@dataclass
class RecordingVideoSender(BaseRecordingSender):
    """A response sender that records the responses of a request for a video."""

    previews: list[tuple[int, bytes]] = field(default_factory=list)
    video: bytes = b""
    size: tuple[int, int] = (0, 0)
    num_frames: int = 0
    fps: int = 0
    seed: int = -1

    def send_preview(self, image: bytes, number: int) -> None:
        assert not self.ends
        self.previews.append((number, image))

    def send_video(self, video: bytes, size: tuple[int, int], num_frames: int, fps: int, seed: int) -> None:
        assert not self.ends
        self.video, self.size, self.num_frames, self.fps, self.seed = video, size, num_frames, fps, seed
        self._end()

    def frames(self) -> Any:
        """Return the decoded frames, uint8[n, height, width, 3]."""
        return read_video(self.video)[0]


def read_video(file: bytes) -> tuple[Any, float, str]:
    """Return the frames of a video, uint8[n, height, width, 3], its seconds, and the name of its codec."""
    with av.open(io.BytesIO(file), "r") as container:
        stream = container.streams.video[0]
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
        assert container.duration is not None
        return frames, container.duration / 1e6, stream.codec_context.codec.canonical_name


@dataclass(frozen=True)
class TinyVideoPipeline:
    """A frontend with a tiny pipeline, and the folder of the pipeline. `decoded` are the frames of each seed."""

    frontend: VideoFrontend
    stats: Stats
    components: TorchComponents
    folder: Path
    decoded: dict[int, list[Any]]

    def ask(self, prompt: str = "a red cat", **options: Any) -> RecordingVideoSender:
        sender = RecordingVideoSender()
        self.frontend.add_request(VideoRequest(prompt=prompt, **options), sender)
        return sender


@contextmanager
def open_tiny_video(
    folder: Path, kind: str, scheduler: Any = None, **parameters: object
) -> Iterator[TinyVideoPipeline]:
    """Write a tiny pipeline under `folder` and open a frontend for it; `parameters` are those of `config.pbtxt`.

    `kind` is `animatediff` or one of Wan's.
    """
    if kind == "animatediff":
        pipeline_folder = make_animatediff_pipeline(folder / "pipeline", scheduler=scheduler)
    else:
        pipeline_folder = make_wan_pipeline(folder / "pipeline", kind, scheduler=scheduler)
    (folder / "1").mkdir()
    source = read(pipeline_folder)
    pipeline_json.write(source, NAME, folder / "1")
    components = TorchComponents(
        pipeline_parts(source), lambda part: networks.load_part(source, part, rewritten=kind == "animatediff")
    )
    references = REFERENCES.get(kind, '["image", "frames"]')
    values = {
        name: {"string_value": str(value)}
        for name, value in {**PARAMETERS, "references": references, **parameters}.items()
    }
    frontend, stats = load_pipeline(folder / "1", values, components)
    assert isinstance(frontend, VideoFrontend)
    try:
        yield TinyVideoPipeline(frontend, stats, components, pipeline_folder, _record_frames(frontend))
    finally:
        components.gate.set()
        frontend.close()


def _record_frames(frontend: VideoFrontend) -> dict[int, list[Any]]:
    """Record what the decoder delivers: float32[3, n, H, W] for each latent frame, by the seed of the request."""
    decoded: dict[int, list[Any]] = {}
    deliver = frontend.decoder.deliver

    def record(task: Any, result: Any) -> None:
        decoded.setdefault(task.job.seeds[0], []).append(result[0])
        deliver(task, result)

    frontend.decoder.deliver = record  # type: ignore[method-assign]
    return decoded


def has_nvenc() -> bool:
    """Return whether this machine encodes videos on a GPU."""
    return find_encoders("auto")[0] == "h264_nvenc"


def picture(pixels: Any, kind: str = "PNG") -> bytes:
    """Encode pixels, uint8[height, width, 3]."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()
