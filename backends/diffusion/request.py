"""Requests for images and for videos."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The tensors that requests for images and for videos share, unchecked; None if not sent.

    `images` are encoded files: the image to edit, or the first frame.
    """

    prompt: str
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    strength: float | None = None
    seed: int | None = None
    images: tuple[bytes, ...] = ()
    quality: int | None = None
    partial_images: int = 0

    @property
    def nbytes(self) -> int:
        """About the memory of the request while it waits, in bytes: of its texts and its files."""
        return sum(map(len, (self.prompt, self.negative_prompt or "", *self.images, *self.further_files)))

    @property
    def further_files(self) -> tuple[bytes, ...]:
        """The encoded files besides `images`."""
        return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRequest(Request):
    """A request for images. `mask` is an encoded file."""

    num_images: int = 1
    mask: bytes | None = None
    output_format: str = "png"

    @property
    def further_files(self) -> tuple[bytes, ...]:
        """The mask, if there is one."""
        return () if self.mask is None else (self.mask,)


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoRequest(Request):
    """A request for one video. `frames` are the encoded frames of a video to start from, in order."""

    num_frames: int | None = None
    fps: int | None = None
    frames: tuple[bytes, ...] = ()

    @property
    def further_files(self) -> tuple[bytes, ...]:
        """The frames."""
        return self.frames
