"""The swap of faces by a network: it draws the target again, with the features that an embedding describes.

The interface is that of InsightFace's inswapper: a face of 128 x 128 pixels and an embedding of 512 numbers in, a face
out. The embedding comes from ArcFace and goes through a matrix of 512 x 512 numbers (the emap).
"""

from dataclasses import dataclass

import numpy as np

from backends.face_swap.faces import Face
from backends.face_swap.geometry import Floats, Matrix, Pixels, Points, apply, fit_similarity, invert, sample, warp
from backends.face_swap.networks import Network
from backends.face_swap.patch import Patch, clip_box

EMBEDDING_SIDE, SWAPPER_SIDE, EMBEDDING_SIZE = 112, 128, 512
MAX_WIDTH = 1024
"""Width in pixels of the largest patch that is computed; that of a larger face is enlarged."""

_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Eyes, nose and corners of the mouth in a picture of 112 x 112 pixels, as ArcFace aligns faces."""
_BORDER, _SOFT = 0.05, 0.15
"""Parts of the drawn face at each edge: that which does not show, and that over which it comes to show fully."""


@dataclass(frozen=True, slots=True, eq=False)
class SwapperNetworks:
    """The networks of a neural swapper, and its matrix, float32[512, 512]; None: embeddings are used as they are."""

    embedding: Network
    swapper: Network
    emap: Floats | None


class NeuralSwapper:
    """Puts one face in the place of others. Several threads may use it."""

    def __init__(self, networks: SwapperNetworks, source: Pixels, face: Face) -> None:
        """`face` lies in the picture `source`."""
        self._networks = networks
        crop = warp(source, invert(_align(face, EMBEDDING_SIDE)), (EMBEDDING_SIDE, EMBEDDING_SIDE))
        (embedding,) = networks.embedding(_to_input(crop / 127.5 - 1))
        latent = _normalize(embedding.reshape(1, EMBEDDING_SIZE))
        self._latent = latent if networks.emap is None else _normalize(latent @ networks.emap)

    def swap(self, target: Pixels, face: Face) -> Patch:
        """Return the patch that replaces `face` in the picture `target`."""
        to_crop = _align(face, SWAPPER_SIDE)
        crop = warp(target, invert(to_crop), (SWAPPER_SIDE, SWAPPER_SIDE))
        (drawn,) = self._networks.swapper(_to_input(crop / 255), self._latent)
        colours = np.clip(drawn[0].transpose(1, 2, 0), 0, 1) * np.float32(255)
        return _place(colours, to_crop, target)


def _align(face: Face, side: int) -> Matrix:
    """Return the matrix from the face's picture to one of `side` x `side` pixels that is aligned as ArcFace's are."""
    template = _TEMPLATE + np.array([8, 0]) if side == SWAPPER_SIDE else _TEMPLATE
    return fit_similarity(_five_points(face.points), template)


def _five_points(points: Points) -> Points:
    eyes = points[36:42].mean(0), points[42:48].mean(0)
    return np.stack([*eyes, points[30], points[48], points[54]])


def _to_input(crop: Floats) -> Floats:
    return np.ascontiguousarray(crop.transpose(2, 0, 1)[None], np.float32)


def _normalize(vector: Floats) -> Floats:
    return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)


def _place(colours: Floats, to_crop: Matrix, target: Pixels) -> Patch:
    """Return the patch of a picture that shows a drawn face, float32[side, side, 3], at its place."""
    side = colours.shape[0]
    corners = np.array([[0, 0], [side, 0], [0, side], [side, side]], np.float64)
    box = clip_box(apply(invert(to_crop), corners), 0, target)
    whole = box[2] - box[0], box[3] - box[1]
    shrinking = max(1.0, max(whole) / MAX_WIDTH)
    width, height = (max(1, round(each / shrinking)) for each in whole)
    columns, rows = np.meshgrid(
        box[0] + (np.arange(width) + 0.5) * whole[0] / width, box[1] + (np.arange(height) + 0.5) * whole[1] / height
    )
    at = apply(to_crop, np.stack([columns, rows], -1).reshape(-1, 2)).reshape(height, width, 2)
    edge = np.minimum(at, side - at).min(-1) / side
    weights = np.clip((edge - _BORDER) / _SOFT, 0, 1)
    return Patch(
        sample(colours, at[..., 0], at[..., 1]), (weights * weights * (3 - 2 * weights)).astype(np.float32), box
    )
