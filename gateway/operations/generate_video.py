"""The operation `generate_video`: a video from a text, and optionally from a first picture or another video."""

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from gateway.operations.operation import ExpectedOutput, Output, Progress, TaskOperation
from gateway.operations.recording import Attachment

CONTENT_TYPE = "video/mp4"
"""The media type of every video."""
SIZE_AND_LENGTH = ("width", "height", "num_frames", "fps")
"""Fields of a request, of a `Video`, and outputs of a model, which have the same names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """The whole video, an MP4 file. `seed` generates it again.

    The other fields are None where the model does not report them. `fps` is frames a second.
    """

    data: bytes
    width: int | None = None
    height: int | None = None
    num_frames: int | None = None
    fps: int | None = None
    seed: int | None = None


VideoEvent: TypeAlias = Progress | Video


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateVideo(TaskOperation):
    """Generate one video of what `prompt` describes. None leaves the choice to the model.

    `width` and `height` are in pixels. `seconds` is the length that the caller asked for; `num_frames` is the number of
    frames that the model generates for it, shown at `fps` frames a second. `image` is an encoded picture, the first
    frame. `frames` are the `num_frames` frames of a video to change, encoded pictures of the size of the request, each
    after its length in four bytes, little-endian; `strength` tells how much they change: 0 not at all, 1 completely.
    `image` and `frames` exclude each other. `quality` is that of the encoding, 0 to 100. `remixed_from` is the id of
    the task whose video is changed.
    """

    operation: ClassVar = "generate_video"
    phrase: ClassVar = "generate videos"
    route: ClassVar = "/v1/videos"
    task_object: ClassVar = "video"
    seed_field: ClassVar = "seed"

    prompt: str
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    num_frames: int | None = None
    fps: int | None = None
    seconds: float | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    strength: float | None = None
    seed: int | None = None
    quality: int | None = None
    image: bytes | None = None
    frames: bytes | Attachment | None = field(default=None, metadata={"in_memory": True})
    remixed_from: str | None = None

    async def task_events(self, events: AsyncIterator[VideoEvent]) -> AsyncGenerator[Progress | Output]:
        """Yield progress, and the video with its size, length and seed as facts."""
        async for event in events:
            match event:
                case Progress():
                    yield event
                case Video():
                    facts = {name: getattr(event, name) or getattr(self, name) for name in SIZE_AND_LENGTH}
                    facts["seed"] = self.seed if event.seed is None else event.seed
                    yield Output(index=0, content_type=CONTENT_TYPE, facts=facts, data=event.data)

    def expected_outputs(self) -> tuple[ExpectedOutput, ...]:
        """Return the one video. Its facts are those that the request names."""
        facts = {name: getattr(self, name) for name in (*SIZE_AND_LENGTH, "seed")}
        return (ExpectedOutput(index=0, content_type=CONTENT_TYPE, facts=facts),)
