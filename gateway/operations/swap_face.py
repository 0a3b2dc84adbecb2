"""The operation `swap_face`: a picture with the face of another one."""

from dataclasses import dataclass
from typing import ClassVar

from gateway.operations.made_image import MadeImage, MakeImage


@dataclass(frozen=True, slots=True, kw_only=True)
class SwappedImage(MadeImage):
    """The picture, in which `num_faces` faces were swapped."""

    num_faces: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapFace(MakeImage):
    """Put the largest face of the picture `source` on all faces of the picture `target`, both encoded files."""

    operation: ClassVar = "swap_face"
    phrase: ClassVar = "swap faces"
    route: ClassVar = "/v1/images/face-swaps"
    fact_names: ClassVar = ("width", "height", "num_faces")

    source: bytes
    target: bytes
