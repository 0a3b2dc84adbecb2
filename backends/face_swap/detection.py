"""Detection of faces with MTCNN (Zhang et al., 2016): three networks, each of which looks closer at fewer windows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from backends.face_swap import boxes as geometry
from backends.face_swap.boxes import Boxes, Scores
from backends.face_swap.geometry import Floats, Pixels, Points
from backends.face_swap.networks import Network

MAX_SIDE = 1024
"""Longer side in pixels of the picture that is searched: larger ones shrink to it."""
MIN_FACE = 20
"""Width in pixels of the smallest face that is searched for, in the picture that is searched."""

_WINDOW, _STRIDE, _PYRAMID = 12, 2, 0.709
_THRESHOLDS = (0.6, 0.7, 0.7)
"""Scores from which a window goes on to the next network, as published."""
_MAX_WINDOWS = (1000, 400, 100)
"""Windows that go on at most, the best of them: a picture of noise must not take long."""


@dataclass(frozen=True, slots=True, eq=False)
class Detection:
    """A face: its box (left, top, right, bottom) and five points: eyes, nose, corners of the mouth."""

    box: npt.NDArray[np.float64]
    points: Points
    score: float

    @property
    def side(self) -> float:
        """The longer side of the box in pixels."""
        return float((self.box[2:] - self.box[:2]).max())


def smallest_face(size: tuple[int, int]) -> int:
    """Return the width in pixels of the smallest face that is found in a picture of this width and height."""
    return int(np.ceil(MIN_FACE * max(1.0, max(size) / MAX_SIDE)))


class FaceDetector:
    """Finds faces. Several threads may use it."""

    def __init__(self, networks: Mapping[str, Network]) -> None:
        """`networks` has `pnet`, `rnet` and `onet`."""
        self._networks = networks

    def detect(self, pixels: Pixels, check: Callable[[], None] = lambda: None) -> list[Detection]:
        """Return the faces, the largest first. `check` is called between steps, and may raise to end the search."""
        height, width = pixels.shape[:2]
        shrinking = max(1.0, max(width, height) / MAX_SIDE)
        image = Image.fromarray(pixels)
        if shrinking > 1:
            image = image.resize((max(1, round(width / shrinking)), max(1, round(height / shrinking))), _AREA)
        factors = np.tile([width / image.width, height / image.height], 2)
        found, scores = self._propose(image, check)
        if len(found):
            check()
            found, scores = self._refine(image, found)
        if not len(found):
            return []
        check()
        found, scores, points = self._finish(image, found)
        faces = [
            Detection(box * factors, five * factors[:2], float(score))
            for box, five, score in zip(found, points, scores, strict=True)
        ]
        return sorted(faces, key=lambda face: -face.side)

    def _propose(self, image: Image.Image, check: Callable[[], None]) -> tuple[Boxes, Scores]:
        found, scores = [np.empty((0, 4))], [np.empty(0)]
        scale = _WINDOW / MIN_FACE
        while min(image.size) * scale >= _WINDOW:
            check()
            size = int(image.width * scale + 1), int(image.height * scale + 1)
            windows, values = self._propose_at(image.resize(size, _AREA), scale)
            kept = geometry.keep_best(windows, values, 0.5)
            found.append(windows[kept])
            scores.append(values[kept])
            scale *= _PYRAMID
        return _best(np.concatenate(found), np.concatenate(scores), 0.7, _MAX_WINDOWS[0])

    def _propose_at(self, image: Image.Image, scale: float) -> tuple[Boxes, Scores]:
        values, shifts = self._networks["pnet"](_to_input([image]))
        rows, columns = np.nonzero(values[0] >= _THRESHOLDS[0])
        scores = values[0, rows, columns].astype(np.float64)
        best = np.argsort(-scores, kind="stable")[: _MAX_WINDOWS[0]]
        rows, columns = rows[best], columns[best]
        corner = np.stack([columns, rows], 1) * _STRIDE / scale
        windows = np.concatenate([corner, corner + _WINDOW / scale], 1)
        parts: Boxes = shifts[0].astype(np.float64)[:, rows, columns].T
        return geometry.shift(windows, parts), scores[best]

    def _refine(self, image: Image.Image, found: Boxes) -> tuple[Boxes, Scores]:
        windows = geometry.to_squares(found)
        scores, shifts = self._networks["rnet"](_crops(image, windows, 24))
        passed = scores > _THRESHOLDS[1]
        windows = geometry.shift(windows[passed], shifts[passed].astype(np.float64))
        return _best(windows, scores[passed].astype(np.float64), 0.7, _MAX_WINDOWS[1])

    def _finish(self, image: Image.Image, found: Boxes) -> tuple[Boxes, Scores, npt.NDArray[np.float64]]:
        windows = geometry.to_squares(found)
        scores, shifts, points = self._networks["onet"](_crops(image, windows, 48))
        passed = scores > _THRESHOLDS[2]
        windows, values = windows[passed], scores[passed].astype(np.float64)
        five = points[passed].astype(np.float64).reshape(-1, 2, 5).transpose(0, 2, 1)
        five = windows[:, None, :2] + five * (windows[:, None, 2:] - windows[:, None, :2])
        boxes = geometry.shift(windows, shifts[passed].astype(np.float64))
        kept = geometry.keep_best(boxes, values, 0.7, "smaller")[: _MAX_WINDOWS[2]]
        return boxes[kept], values[kept], five[kept]


_AREA = Image.Resampling.BOX


def _best(boxes: Boxes, scores: Scores, max_overlap: float, count: int) -> tuple[Boxes, Scores]:
    kept = geometry.keep_best(boxes, scores, max_overlap)[:count]
    return boxes[kept], scores[kept]


def _crops(image: Image.Image, windows: Boxes, side: int) -> Floats:
    """Return the input of a network: each window as far as it lies in the picture, stretched to a square."""
    limits = np.array([image.width, image.height], np.float64)
    crops = []
    for window in windows:
        low = np.clip(window[:2], 0, limits - 1)
        high = np.clip(window[2:], low + 1, limits)
        crops.append(image.resize((side, side), _AREA, box=(*low, *high)))
    return _to_input(crops)


def _to_input(images: list[Image.Image]) -> Floats:
    """Return float32[images, 3, height, width] from -1 to 1."""
    stacked = np.stack([np.asarray(image) for image in images]).astype(np.float32)
    return np.ascontiguousarray(((stacked - 127.5) / 128).transpose(0, 3, 1, 2))
