"""The operation `edit_image`: images from other images and a text.

The events are those of `gateway.operations.generate_image`.
"""

from dataclasses import dataclass
from typing import ClassVar

from gateway.operations.generate_image import GenerateImage


@dataclass(frozen=True, slots=True, kw_only=True)
class EditImage(GenerateImage):
    """Generate `n` images from `images`, encoded files. The first of them is the one to edit.

    `mask` is an encoded file as well. Where it is transparent (or white, if it has no transparent pixels), the image is
    generated anew; everywhere else it stays. Without a mask the whole image changes, by `strength`: 0 not at all, 1
    completely.
    """

    operation: ClassVar = "edit_image"
    phrase: ClassVar = "edit images"
    route: ClassVar = "/v1/images/edits"
    node_type: ClassVar = 2

    images: tuple[bytes, ...]
    mask: bytes | None = None
    strength: float | None = None
