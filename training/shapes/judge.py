"""Reads a picture back, by its pixels, and says which claims of a scene it keeps.

Strict: an object too many, a smear between two of them or a shape that is half right fails. Every picture that
`drawing.render` makes passes.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.shapes.rendering import IMAGE_SIZE, ImageArray, shape_mask
from training.shapes.scenes import COLOURS, PLACES, RADIUS, SHAPES, Scene, SceneObject

CRITERIA = ("background", "count", "colour", "shape", "size", "position")
"""What is judged. Where the count is wrong, nothing that is said of each object counts as right."""

MIN_OBJECT_AREA = 40
"""Pixels: what is smaller is a speck, not an object. The smallest thing of a scene has over 400."""

MIN_SHAPE_IOU = 0.75
"""Least overlap (intersection over union) of an object with the ideal shape of its centre and area."""

MAX_POSITION_ERROR = 10.0
"""Pixels between where an object is and where it should be; the scenes themselves move by up to 3."""

RADIUS_BOUNDS = {"small": (15.5, 23.0), "large": (23.0, 33.0)}
"""Bounds of the radius in pixels."""

REFERENCE_RADIUS = 28.0

Mask = npt.NDArray[np.bool_]

_PALETTE = np.array(list(COLOURS.values()), dtype=np.int32)
_NAMES = tuple(COLOURS)


@dataclass(frozen=True, slots=True)
class DetectedObject:
    """An object in a picture: its colour, best-fitting shape, radius (pixels) and centre (pixels)."""

    colour: str
    shape: str
    iou: float
    radius: float
    x: float
    y: float


def judge(picture: ImageArray, scene: Scene) -> dict[str, bool]:
    """Say for each of `CLAIMS`, and for `all` together, whether the picture keeps it."""
    kinds = nearest_colours(picture)
    background = _NAMES.index(scene.background)
    band = np.concatenate([kinds[:2].ravel(), kinds[-2:].ravel(), kinds[:, :2].ravel(), kinds[:, -2:].ravel()])
    objects = [_read(kinds, blob) for blob in connected_components(kinds != background)]
    verdict = {"background": float(np.mean(band == background)) > 0.95, "count": len(objects) == len(scene.objects)}
    pairs = _match(objects, scene.objects) if verdict["count"] else []
    for claim, keeps in (("colour", _colour), ("shape", _shape), ("size", _size), ("position", _position)):
        verdict[claim] = bool(pairs) and all(keeps(found, thing) for found, thing in pairs)
    return {**verdict, "all": all(verdict.values())}


def nearest_colours(picture: ImageArray) -> npt.NDArray[np.int64]:
    """For each pixel the index of the nearest colour of `COLOURS`, [SIZE, SIZE]."""
    distance = ((picture[:, :, None].astype(np.int32) - _PALETTE) ** 2).sum(-1)
    indices: npt.NDArray[np.int64] = distance.argmin(-1)
    return indices


def connected_components(covered: Mask) -> list[Mask]:
    """The connected parts (by sides) of a mask that are larger than a speck."""
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


def _read(kinds: npt.NDArray[np.int64], blob: Mask) -> DetectedObject:
    # Two pixels of the rim are mixtures of the object and the background: red on white is pink there.
    core = _eroded(_eroded(blob))
    counts = np.bincount(kinds[core if core.any() else blob], minlength=len(_NAMES))
    colour = _NAMES[counts.argmax()] if counts.max() > 0.8 * counts.sum() else "mixed"
    y, x = np.nonzero(blob)
    fits = {shape: _fit(blob, shape) for shape in SHAPES}
    shape = max(fits, key=fits.__getitem__)
    radius = REFERENCE_RADIUS * math.sqrt(len(x) / _area(shape))
    return DetectedObject(colour, shape, fits[shape], radius, float(x.mean()) + 0.5, float(y.mean()) + 0.5)


def _eroded(blob: Mask) -> Mask:
    padded = np.pad(blob, 1)
    inner: Mask = blob & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return inner


def _fit(blob: Mask, shape: str) -> float:
    """Intersection over union with the shape of the same centre of mass and area."""
    y, x = np.nonzero(blob)
    radius = REFERENCE_RADIUS * math.sqrt(len(x) / _area(shape))
    ideal = np.asarray(shape_mask(shape, float(x.mean()) + 0.5, float(y.mean()) + 0.5, radius)) > 127
    return float((blob & ideal).sum() / (blob | ideal).sum())


@functools.cache
def _area(shape: str) -> int:
    return int((np.asarray(shape_mask(shape, IMAGE_SIZE / 2, IMAGE_SIZE / 2, REFERENCE_RADIUS)) > 127).sum())


def _match(objects: list[DetectedObject], things: tuple[SceneObject, ...]) -> list[tuple[DetectedObject, SceneObject]]:
    """Each thing with the object nearest to its place; the nearest pairs first."""
    pairs: list[tuple[DetectedObject, SceneObject]] = []
    left, open_things = list(objects), list(things)
    while open_things:
        found, thing = min(((f, t) for f in left for t in open_things), key=lambda pair: _distance(*pair))
        pairs.append((found, thing))
        left.remove(found)
        open_things.remove(thing)
    return pairs


def _distance(found: DetectedObject, thing: SceneObject) -> float:
    x, y = PLACES[thing.place]
    return math.hypot(found.x - x, found.y - y)


def _colour(found: DetectedObject, thing: SceneObject) -> bool:
    return found.colour == thing.colour


def _shape(found: DetectedObject, thing: SceneObject) -> bool:
    return found.shape == thing.shape and found.iou >= MIN_SHAPE_IOU


def _size(found: DetectedObject, thing: SceneObject) -> bool:
    low, high = RADIUS_BOUNDS[thing.size]
    assert low < RADIUS[thing.size] < high
    return low <= found.radius < high


def _position(found: DetectedObject, thing: SceneObject) -> bool:
    return _distance(found, thing) <= MAX_POSITION_ERROR
