"""A request for images."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The tensors of one request, unchecked; None if not sent. `images` and `mask` are encoded files."""

    prompt: str
    negative_prompt: str | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None
    num_images: int = 1
    guidance_scale: float | None = None
    strength: float | None = None
    seed: int | None = None
    images: tuple[bytes, ...] = ()
    mask: bytes | None = None
    output_format: str = "png"
    quality: int | None = None
    partial_images: int = 0

    @property
    def nbytes(self) -> int:
        """About the memory of the request while it waits, in bytes: of its texts, its images and its mask."""
        return sum(map(len, (self.prompt, self.negative_prompt or "", *self.images, self.mask or b"")))
