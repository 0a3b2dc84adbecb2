"""Draw pictures that begin with others. The events are those of `gateway.operations.generate_image`."""

from dataclasses import dataclass
from typing import ClassVar

from gateway.operations.generate_image import GenerateImage


@dataclass(frozen=True, slots=True, kw_only=True)
class EditImage(GenerateImage):
    """Draw `n` pictures that begin with `images`, encoded files, the first of which is edited.

    `mask` is an encoded file, too: where it is transparent (or white, if nothing of it is transparent) the picture is
    drawn anew, and everywhere else it stays. Without one all of it changes, by `strength`: 0 not at all, 1 wholly.
    """

    operation: ClassVar = "edit_image"
    phrase: ClassVar = "edit pictures"
    route: ClassVar = "/v1/images/edits"
    node_type: ClassVar = 2

    images: tuple[bytes, ...]
    mask: bytes | None = None
    strength: float | None = None
