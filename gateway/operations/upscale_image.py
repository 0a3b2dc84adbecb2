"""The operation `upscale_image`: a picture with more pixels, and details that suit it."""

from dataclasses import dataclass
from typing import ClassVar

from gateway.operations.made_image import MakeImage


@dataclass(frozen=True, slots=True, kw_only=True)
class UpscaleImage(MakeImage):
    """Multiply the width and the height of `image`, an encoded file, by `scale`, one of the model's scales."""

    operation: ClassVar = "upscale_image"
    phrase: ClassVar = "upscale images"
    route: ClassVar = "/v1/images/upscales"

    image: bytes
    scale: int = 2
