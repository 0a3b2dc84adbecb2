"""What a request asks for."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The tensors of one request, unchecked; None is what was not sent. Pictures are encoded files."""

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
        """About how much memory the request takes while it waits: its texts, its picture and its mask."""
        return sum(map(len, (self.prompt, self.negative_prompt or "", *self.images, self.mask or b"")))
