"""Measure the shape in every frame of a clip from its pixels, and compare the clip with a scene.

The judge is strict: it fails a clip with a second object, a blurred shape or a motion besides the claimed one. True
renders pass.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.moving_shapes.rendering import Clip, coverage
from training.moving_shapes.scenes import TURNING_SHAPES, MovingScene
from training.moving_shapes.trajectories import Trajectory
from training.shapes.judge import connected_components, nearest_colours
from training.shapes.scenes import COLOURS, SHAPES

CRITERIA = ("background", "colour", "shape", "motion")

MIN_OBJECT_AREA = 25
"""Area in pixels of the smallest object; smaller components are specks."""

MIN_SHAPE_IOU = 0.7
"""Smallest mean intersection over union of the shape with the ideal one of the same centre and area."""

MIN_DISTANCE, MAX_DRIFT = 11.0, 6.0
"""Pixels that a straight motion covers at least, and that a shape leaves its line or its place at most."""

MIN_GROWTH, MAX_SIZE_CHANGE = 1.3, 1.22
"""Ratio of the last and the first radius: of a shape that grows at least, of one that keeps its size at most."""

MIN_ROUND_DEGREES, MIN_ROUND_RADIUS, MIN_TURN_DEGREES = 270.0, 5.0, 60.0

SYMMETRY_DEGREES = {"square": 90, "triangle": 120, "star": 72}
ANGLE_STEP_DEGREES = 4

Mask = npt.NDArray[np.bool_]

_NAMES = tuple(COLOURS)
_STRAIGHT = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


@dataclass(frozen=True, slots=True)
class DetectedShape:
    """The object of one frame: its pixels, its centre and the radius of a disc of its area in pixels, and its colour.

    The colour is "mixed" if it is not one of `COLOURS`.
    """

    mask: Mask
    x: float
    y: float
    radius: float
    colour: str


def judge(clip: Clip, scene: MovingScene) -> dict[str, bool]:
    """Return for each of `CRITERIA`, and for `all` together, whether the clip meets it."""
    detected = [detect(frame, scene.background) for frame in clip]
    appears = scene.motion == "appear"
    shown = [shape for shape in detected[len(clip) * 3 // 4 :] if shape] if appears else [s for s in detected if s]
    complete = len(shown) == len(clip) - len(clip) * 3 // 4 if appears else len(shown) == len(clip)
    verdict = {
        "background": all(_has_background(frame, scene.background) for frame in clip),
        "colour": complete and np.mean([shape.colour == scene.colour for shape in shown]) >= 0.8,
        "shape": complete and _best_shape(shown, scene) == scene.shape,
        "motion": complete and _moves(detected, shown, scene),
    }
    met = {name: bool(value) for name, value in verdict.items()}
    return {**met, "all": all(met.values())}


def detect(frame: Clip, background: str) -> DetectedShape | None:
    """Return the object of a frame [h, w, 3], or None if there is none or more than one."""
    level = np.array(COLOURS[background])
    components = [
        component
        for component in connected_components(np.abs(frame.astype(np.int32) - level).max(-1) > _threshold(frame, level))
        if component.sum() > MIN_OBJECT_AREA
    ]
    if len(components) != 1:
        return None
    mask = components[0]
    y, x = np.nonzero(mask)
    padded = np.pad(mask, 1)
    core = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    counts = np.bincount(nearest_colours(frame)[core if core.any() else mask], minlength=len(_NAMES))
    colour = _NAMES[counts.argmax()] if counts.max() > 0.6 * counts.sum() else "mixed"
    return DetectedShape(mask, float(x.mean()) + 0.5, float(y.mean()) + 0.5, math.sqrt(len(x) / math.pi), colour)


def _threshold(frame: Clip, background: npt.NDArray[np.int64]) -> float:
    """Return half of the object's contrast, where its outline lies, and at least what noise does not reach."""
    contrast = np.percentile(np.abs(frame.astype(np.int32) - background).max(-1), 98.5)
    return max(20.0, float(contrast) / 2)


def _has_background(frame: Clip, background: str) -> bool:
    near = np.abs(frame.astype(np.int32) - COLOURS[background]).max(-1) < 40
    band = np.concatenate([near[:2].ravel(), near[-2:].ravel(), near[:, :2].ravel(), near[:, -2:].ravel()])
    return float(np.mean(band)) > 0.9


def _best_shape(shown: list[DetectedShape], scene: MovingScene) -> str:
    """Return the shape that fits best in five frames, or "none" if it fits badly."""
    frames = [shown[i] for i in np.linspace(0, len(shown) - 1, 5).round().astype(int)]
    turning = scene.motion == "turn"
    fits = {
        name: np.mean([shape_fits(frame.mask, name, turning and name in TURNING_SHAPES)[0] for frame in frames])
        for name in SHAPES
    }
    best = max(fits, key=lambda name: float(fits[name]))
    return best if fits[best] >= MIN_SHAPE_IOU else "none"


def shape_fits(mask: Mask, shape: str, turning: bool) -> tuple[float, float]:
    """Return the best intersection over union with the ideal shape of the mask's centre and area, and its angle.

    The angle is in degrees, 0 unless `turning`.
    """
    y, x = np.nonzero(mask)
    angles = np.arange(0, SYMMETRY_DEGREES[shape] if turning else 1, ANGLE_STEP_DEGREES, dtype=np.float32)
    ones = np.ones(len(angles), np.float32)
    centre = Trajectory(
        ones * np.float32(x.mean() + 0.5), ones * np.float32(y.mean() + 0.5), ones, np.radians(angles), ones
    )
    ideal = coverage(shape, _with_area(shape, centre, len(x))) >= 0.5
    overlaps = (ideal & mask).sum((1, 2)) / (ideal | mask).sum((1, 2))
    return float(overlaps.max()), float(angles[overlaps.argmax()])


def _with_area(shape: str, trajectory: Trajectory, area: int) -> Trajectory:
    factor = {"circle": math.pi, "square": 3.24, "triangle": 1.299, "star": 1.3226, "ring": 0.6975 * math.pi}[shape]
    return Trajectory(
        trajectory.x,
        trajectory.y,
        trajectory.radius * np.float32(math.sqrt(area / factor)),
        trajectory.angle,
        trajectory.opacity,
    )


def _moves(detected: list[DetectedShape | None], shown: list[DetectedShape], scene: MovingScene) -> bool:
    x, y, radius = (np.array([getattr(shape, name) for shape in shown]) for name in ("x", "y", "radius"))
    growth = radius[-1] / radius[0]
    keeps_size = 1 / MAX_SIZE_CHANGE < growth < MAX_SIZE_CHANGE
    stays = np.hypot(x - x[0], y - y[0]).max() <= MAX_DRIFT
    match scene.motion:
        case "circle":
            return bool(keeps_size and _goes_round(x, y))
        case "grow":
            return bool(stays and growth >= MIN_GROWTH)
        case "shrink":
            return bool(stays and growth <= 1 / MIN_GROWTH)
        case "turn":
            return bool(stays and keeps_size and _degrees_turned(shown, scene.shape) >= MIN_TURN_DEGREES)
        case "appear":
            return bool(detected[0] is None and stays and keeps_size)
    dx, dy = _STRAIGHT[scene.motion]
    along, across = x * dx + y * dy, x * dy + y * dx
    advances = along[-1] - along[0] >= MIN_DISTANCE and np.diff(along).min() > -2
    return bool(keeps_size and advances and np.ptp(across) <= MAX_DRIFT)


def _goes_round(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> bool:
    dx, dy = x - (x.max() + x.min()) / 2, y - (y.max() + y.min()) / 2
    steps = np.diff(np.degrees(np.unwrap(np.arctan2(dy, dx))))
    return bool(steps.sum() >= MIN_ROUND_DEGREES and np.hypot(dx, dy).min() >= MIN_ROUND_RADIUS)


def _degrees_turned(shown: list[DetectedShape], shape: str) -> float:
    angles = [shape_fits(frame.mask, shape, turning=True)[1] for frame in shown]
    unwrapped = np.unwrap(angles, period=SYMMETRY_DEGREES[shape])
    return float(unwrapped[-1] - unwrapped[0])
