"""Detect the objects of an image from its pixels, and compare them with a scene.

The judge is strict: it fails an image with an extra object, with a smear between two objects or with a half-right
shape. Every image that `rendering.render_scene` makes passes.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.shapes.rendering import IMAGE_SIZE, ImageArray, shape_mask
from training.shapes.scenes import COLOURS, PLACES, RADIUS, SHAPES, Scene, SceneObject

CRITERIA = ("background", "count", "colour", "shape", "size", "position")
"""Criteria of an image. If the count is wrong, all criteria about single objects fail too."""

MIN_OBJECT_AREA = 40
"""Area in pixels of the smallest object; smaller components are specks. A scene's smallest object has over 400."""

MIN_SHAPE_IOU = 0.75
"""Smallest intersection over union of an object with the ideal shape of the same centre and area."""

MAX_POSITION_ERROR = 10.0
"""Largest distance of an object from its place, in pixels. Training scenes are shifted by up to 3."""

RADIUS_BOUNDS = {"small": (15.5, 23.0), "large": (23.0, 33.0)}
"""Bounds of the radius of each size, in pixels."""

REFERENCE_RADIUS = 28.0

Mask = npt.NDArray[np.bool_]

_PALETTE = np.array(list(COLOURS.values()), dtype=np.int32)
_NAMES = tuple(COLOURS)


@dataclass(frozen=True, slots=True)
class DetectedObject:
    """An object in an image: colour, best-fitting shape with its IoU, and radius and centre in pixels."""

    colour: str
    shape: str
    iou: float
    radius: float
    x: float
    y: float


def judge(image: ImageArray, scene: Scene) -> dict[str, bool]:
    """Return for each of `CRITERIA`, and for `all` together, whether the image meets it."""
    colour_indices = nearest_colours(image)
    background = _NAMES.index(scene.background)
    band = np.concatenate(
        [
            colour_indices[:2].ravel(),
            colour_indices[-2:].ravel(),
            colour_indices[:, :2].ravel(),
            colour_indices[:, -2:].ravel(),
        ]
    )
    objects = [_detect(colour_indices, component) for component in connected_components(colour_indices != background)]
    verdict = {"background": float(np.mean(band == background)) > 0.95, "count": len(objects) == len(scene.objects)}
    pairs = _match(objects, scene.objects) if verdict["count"] else []
    for criterion, is_met in (("colour", _colour), ("shape", _shape), ("size", _size), ("position", _position)):
        verdict[criterion] = bool(pairs) and all(is_met(detected, expected) for detected, expected in pairs)
    return {**verdict, "all": all(verdict.values())}


def nearest_colours(image: ImageArray) -> npt.NDArray[np.int64]:
    """Return the index of the nearest colour of `COLOURS` for each pixel, [IMAGE_SIZE, IMAGE_SIZE]."""
    distance = ((image[:, :, None].astype(np.int32) - _PALETTE) ** 2).sum(-1)
    indices: npt.NDArray[np.int64] = distance.argmin(-1)
    return indices


def connected_components(covered: Mask) -> list[Mask]:
    """Return the 4-connected components of a mask that are larger than `MIN_OBJECT_AREA`."""
    labels = np.where(covered, np.arange(1, covered.size + 1).reshape(covered.shape), 0)
    while True:
        padded = np.pad(labels, 1)
        spread = np.max([labels, padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]], axis=0)
        spread = np.where(covered, spread, 0)
        if np.array_equal(spread, labels):
            break
        labels = spread
    areas = np.bincount(labels.ravel())
    return [labels == label for label in np.nonzero(areas > MIN_OBJECT_AREA)[0] if label]


def _detect(colour_indices: npt.NDArray[np.int64], component: Mask) -> DetectedObject:
    # The two outer pixels mix object and background: the rim of red on white is pink.
    core = _eroded(_eroded(component))
    counts = np.bincount(colour_indices[core if core.any() else component], minlength=len(_NAMES))
    colour = _NAMES[counts.argmax()] if counts.max() > 0.8 * counts.sum() else "mixed"
    y, x = np.nonzero(component)
    fits = {shape: _fit(component, shape) for shape in SHAPES}
    shape = max(fits, key=fits.__getitem__)
    radius = REFERENCE_RADIUS * math.sqrt(len(x) / _area(shape))
    return DetectedObject(colour, shape, fits[shape], radius, float(x.mean()) + 0.5, float(y.mean()) + 0.5)


def _eroded(component: Mask) -> Mask:
    padded = np.pad(component, 1)
    inner: Mask = component & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inner


def _fit(component: Mask, shape: str) -> float:
    """Return the intersection over union with the ideal shape of the same centre of mass and area."""
    y, x = np.nonzero(component)
    radius = REFERENCE_RADIUS * math.sqrt(len(x) / _area(shape))
    ideal = np.asarray(shape_mask(shape, float(x.mean()) + 0.5, float(y.mean()) + 0.5, radius)) > 127
    return float((component & ideal).sum() / (component | ideal).sum())


@functools.cache
def _area(shape: str) -> int:
    return int((np.asarray(shape_mask(shape, IMAGE_SIZE / 2, IMAGE_SIZE / 2, REFERENCE_RADIUS)) > 127).sum())


def _match(
    objects: list[DetectedObject], scene_objects: tuple[SceneObject, ...]
) -> list[tuple[DetectedObject, SceneObject]]:
    """Pair each expected object with the detected one nearest to its place, nearest pairs first."""
    pairs: list[tuple[DetectedObject, SceneObject]] = []
    remaining, unmatched = list(objects), list(scene_objects)
    while unmatched:
        detected, expected = min(((f, t) for f in remaining for t in unmatched), key=lambda pair: _distance(*pair))
        pairs.append((detected, expected))
        remaining.remove(detected)
        unmatched.remove(expected)
    return pairs


def _distance(detected: DetectedObject, expected: SceneObject) -> float:
    x, y = PLACES[expected.place]
    return math.hypot(detected.x - x, detected.y - y)


def _colour(detected: DetectedObject, expected: SceneObject) -> bool:
    return detected.colour == expected.colour


def _shape(detected: DetectedObject, expected: SceneObject) -> bool:
    return detected.shape == expected.shape and detected.iou >= MIN_SHAPE_IOU


def _size(detected: DetectedObject, expected: SceneObject) -> bool:
    low, high = RADIUS_BOUNDS[expected.size]
    assert low < RADIUS[expected.size] < high
    return low <= detected.radius < high


def _position(detected: DetectedObject, expected: SceneObject) -> bool:
    return _distance(detected, expected) <= MAX_POSITION_ERROR
