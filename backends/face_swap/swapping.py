"""The swap of all faces of a picture."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from backends.face_swap.faces import Face, FaceFinder
from backends.face_swap.geometry import Pixels
from backends.face_swap.neural_swapper import NeuralSwapper, SwapperNetworks
from backends.face_swap.patch import Patch
from backends.face_swap.warp_swapper import WarpSwapper


class Swapper(Protocol):
    """Puts one face in the place of others."""

    def swap(self, target: Pixels, face: Face) -> Patch:
        """Return the patch that replaces `face` in the picture `target`."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class FaceSwapper:
    """Swaps faces: by warping, or by `networks` where the model has these. Several threads may use it."""

    finder: FaceFinder
    networks: SwapperNetworks | None = None

    def swap(
        self,
        source: Pixels,
        target: Pixels,
        max_faces: int,
        on_progress: Callable[[float], None] = lambda fraction: None,
        check: Callable[[], None] = lambda: None,
    ) -> tuple[Pixels, int]:
        """Return `target` with the largest face of `source` on its faces, and the number of these.

        The `max_faces` largest faces of the target are replaced. `check` is called between steps, and may raise to end
        the work; `on_progress` gets the part that is done. Raises `InvalidValue`, naming `source` or `target`, where a
        picture has no face that can be swapped.
        """
        (face,) = self.finder.find(source, "source", 1, check)
        faces = self.finder.find(target, "target", max_faces, check)
        check()
        swapper = self._make_swapper(source, face)
        picture = Image.fromarray(target)
        for number, each in enumerate(faces):
            check()
            on_progress((number + 1) / (len(faces) + 2))
            swapper.swap(target, each).paste(picture)
        on_progress((len(faces) + 1) / (len(faces) + 2))
        return np.asarray(picture), len(faces)

    def _make_swapper(self, source: Pixels, face: Face) -> Swapper:
        return WarpSwapper(source, face) if self.networks is None else NeuralSwapper(self.networks, source, face)
