"""The 68 points of a face, in the order of the data set 300-W.

0 to 16 are the jaw, 17 to 26 the brows, 27 to 35 the nose, 36 to 47 the eyes, 48 to 67 the mouth, each from left to
right in the picture.
"""

import numpy as np

from backends.face_swap.detection import Detection
from backends.face_swap.geometry import Matrix, Pixels, Points, apply, warp
from backends.face_swap.networks import Network

SIDE = 112
"""Side in pixels of the picture that the network takes."""
_MARGIN = 1.05
"""Side of the square around a face, in sides of its box."""

# fmt: off
MIRRORED = np.array((
    16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17,
    27, 28, 29, 30, 35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
))
# fmt: on
"""The point that each point becomes in the mirror."""


class LandmarkFinder:
    """Finds the points of detected faces. Several threads may use it."""

    def __init__(self, network: Network) -> None:
        self._network = network

    def find(self, pixels: Pixels, face: Detection) -> Points:
        """Return float64[68, 2].

        The face is turned upright by its eyes. The result is the mean of what the network finds in the picture and in
        its mirror image.
        """
        matrix = _upright(face)
        crop = warp(pixels, matrix, (SIDE, SIDE))
        images = np.stack([crop, crop[:, ::-1]]).transpose(0, 3, 1, 2)
        ((plain, mirror),) = self._network(np.ascontiguousarray(images, dtype=np.float32))
        mirror = mirror[MIRRORED] * [-1, 1] + [1, 0]
        return apply(matrix, (plain + mirror).astype(np.float64) / 2 * SIDE)


def _upright(face: Detection) -> Matrix:
    """Return the matrix from the network's picture to the whole one."""
    right = face.points[1] - face.points[0]
    length = float(np.hypot(*right))
    right = right / length if length > 1e-6 else np.array([1.0, 0.0])
    down = np.array([-right[1], right[0]])
    step = face.side * _MARGIN / SIDE
    linear = np.column_stack([right, down]) * step
    centre = (face.box[:2] + face.box[2:]) / 2
    return np.column_stack([linear, centre - linear @ [SIDE / 2, SIDE / 2]])
