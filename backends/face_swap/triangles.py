"""The triangles between the points of a face, and the map of one face's pixels to another's."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from backends.face_swap.geometry import Floats, Mask, Points

RAISED_BROWS = 0.08
"""Distance of the points above the brows from them, as a part of that from the chin to the bridge of the nose.

Higher up, hair lies over many foreheads: a mask that ends here leaves it alone.
"""
_BROWS, _BRIDGE, _CHIN = slice(17, 27), 27, 8

# The Delaunay triangulation of the mean face of photographs, with that of the mouth written by hand: lips that touch
# in the mean would else be connected across one another. Points 68 to 77 lie above the brows.
_TRIANGLES = """
    0 1 36, 0 17 36, 0 17 68, 1 2 41, 1 36 41, 2 3 31, 2 31 41, 3 4 48, 3 31 48, 4 5 48, 5 6 48, 6 7 59,
    6 48 59, 7 8 58, 7 58 59, 8 9 56, 8 56 57, 8 57 58, 9 10 55, 9 55 56, 10 11 54, 10 54 55, 11 12 54,
    12 13 54, 13 14 35, 13 35 54, 14 15 46, 14 35 46, 15 16 45, 15 45 46, 16 26 45, 16 26 77, 17 18 36,
    17 18 68, 18 19 37, 18 19 69, 18 36 37, 18 68 69, 19 20 37, 19 20 71, 19 69 70, 19 70 71, 20 21 38,
    20 21 72, 20 37 38, 20 71 72, 21 22 27, 21 22 72, 21 27 39, 21 38 39, 22 23 43, 22 23 73, 22 27 42,
    22 42 43, 22 72 73, 23 24 44, 23 24 74, 23 43 44, 23 73 74, 24 25 44, 24 25 76, 24 74 75, 24 75 76,
    25 26 45, 25 26 77, 25 44 45, 25 76 77, 27 28 39, 27 28 42, 28 29 40, 28 29 47, 28 39 40, 28 42 47,
    29 30 31, 29 30 35, 29 31 40, 29 35 47, 30 31 32, 30 32 33, 30 33 34, 30 34 35, 31 32 50, 31 40 41,
    31 48 49, 31 49 50, 32 33 50, 33 34 52, 33 50 51, 33 51 52, 34 35 52, 35 46 47, 35 52 53, 35 53 54,
    36 37 41, 37 38 41, 38 39 40, 38 40 41, 42 43 47, 43 44 46, 43 46 47, 44 45 46, 48 49 60, 48 59 60,
    49 50 61, 49 60 61, 50 51 61, 51 52 63, 51 61 62, 51 62 63, 52 53 63, 53 54 64, 53 63 64, 54 55 64,
    55 56 65, 55 64 65, 56 57 65, 57 58 67, 57 65 66, 57 66 67, 58 59 67, 59 60 67, 60 61 67, 61 62 67,
    62 63 65, 62 65 66, 62 66 67, 63 64 65, 70 71 74, 70 74 75, 71 72 74, 72 73 74
"""
TRIANGLES = np.array([[int(number) for number in each.split()] for each in _TRIANGLES.split(",")], np.intp)
"""int[triangles, 3]: numbers of points."""
_PARTS = ({*range(17, 27), *range(68, 78)}, {*range(36, 42)}, {*range(42, 48)}, {*range(48, 68)})
IS_SKIN = np.array([not any(set(each) <= part for part in _PARTS) for each in TRIANGLES.tolist()])
"""bool[triangles]: false at the brows, the eyes and the mouth, whose colours are not those of the skin."""
IS_MOUTH = np.array([set(each) <= {*range(60, 68)} for each in TRIANGLES.tolist()])
"""bool[triangles]: true between the lips."""


@dataclass(frozen=True, slots=True, eq=False)
class FaceMap:
    """For each pixel of a picture, the point of another face that belongs there.

    `x` and `y` are float32[height, width]. `triangle`, int16[height, width], is -1 outside the face.
    """

    x: Floats
    y: Floats
    triangle: npt.NDArray[np.int16]

    @property
    def inside(self) -> Mask:
        """bool[height, width]: the pixels of the face."""
        return self.triangle >= 0

    @property
    def mouth(self) -> Mask:
        """bool[height, width]: the pixels between the lips."""
        mouth: Mask = self.inside & IS_MOUTH[self.triangle]
        return mouth

    @property
    def skin(self) -> Mask:
        """bool[height, width]: the pixels of the face without brows, eyes and mouth."""
        skin: Mask = self.inside & IS_SKIN[self.triangle]
        return skin


def with_forehead(points: Points) -> Points:
    """Return float64[78, 2]: the 68 points of a face, and ten above the brows."""
    return np.concatenate([points, points[_BROWS] + (points[_BRIDGE] - points[_CHIN]) * RAISED_BROWS])


def map_face(points: Points, other: Points, size: tuple[int, int]) -> FaceMap:
    """Return the map from the pixels of a picture of `size` (width, height) to those of another one.

    `points` are the points of the face in the picture, `other` those of the face in the other one, float64[78, 2] each
    (`with_forehead`). Each triangle is mapped by its own affine map, so that the maps of neighbours agree on their
    edge.
    """
    width, height = size
    x, y = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    triangle = np.full((height, width), -1, np.int16)
    for number, corners in enumerate(TRIANGLES):
        here, there = points[corners], other[corners]
        low = np.clip(np.floor(here.min(0)).astype(int), 0, [width, height])
        high = np.clip(np.ceil(here.max(0)).astype(int) + 1, 0, [width, height])
        edges = np.stack([here[1] - here[0], here[2] - here[0]], 1)
        if (high <= low).any() or abs(np.linalg.det(edges)) < 1e-9:
            continue
        columns, rows = np.meshgrid(np.arange(low[0], high[0]) + 0.5, np.arange(low[1], high[1]) + 0.5)
        offsets = np.stack([columns - here[0, 0], rows - here[0, 1]], -1)
        weights = offsets @ np.linalg.inv(edges).T
        covered = (weights >= -1e-6).all(-1) & (weights.sum(-1) <= 1 + 1e-6)
        mapped = there[0] + weights[covered] @ np.stack([there[1] - there[0], there[2] - there[0]])
        window = np.s_[low[1] : high[1], low[0] : high[0]]
        x[window][covered], y[window][covered] = mapped[:, 0], mapped[:, 1]
        triangle[window][covered] = number
    return FaceMap(x, y, triangle)
