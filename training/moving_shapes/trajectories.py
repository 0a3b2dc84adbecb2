"""How a shape moves: its place, radius, angle and opacity in each frame of a clip."""

import math
import random
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

CLIP_SIZE = 64
"""Width and height of a clip, in pixels."""

NUM_FRAMES = 17
FRAMES_PER_SECOND = 8

TURN_DEGREES = 120.0
"""Rotation during a clip. Frames are less than half of the smallest symmetry (star, 72 degrees) apart."""

GROWTH = 1.65
"""Final radius of a growing shape by its first one. A shrinking shape does the inverse."""

_DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}

Values = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """State of the shape in each frame: centre and radius in pixels, clockwise angle in radians, opacity 0 to 1.

    All fields are float32 [frames].
    """

    x: Values
    y: Values
    radius: Values
    angle: Values
    opacity: Values


def sample_trajectory(motion: str, rng: random.Random, from_centre: bool | None = None) -> Trajectory:
    """Return a random trajectory of a motion, a key of `MOTIONS`.

    A straight motion starts at the side that it leaves, or with `from_centre` near the centre, from where the first
    frame does not tell its direction; None leaves that to chance. A shape that does not move stays near the centre.
    """
    centred = rng.random() < 0.5 if from_centre is None else from_centre
    still = _still(CLIP_SIZE / 2 + rng.uniform(-7, 7), CLIP_SIZE / 2 + rng.uniform(-7, 7), rng.uniform(11.0, 14.0))
    match motion:
        case "left" | "right" | "up" | "down":
            return _straight(_DIRECTIONS[motion], centred, rng)
        case "circle":
            return _circular(rng)
        case "grow":
            return replace(still, radius=_ramp(first := rng.uniform(8.0, 11.0), first * GROWTH))
        case "shrink":
            return replace(still, radius=_ramp(first := rng.uniform(12.5, 17.5), first / GROWTH))
        case "turn":
            return replace(still, angle=_ramp(0, math.radians(TURN_DEGREES * rng.uniform(0.9, 1.1))))
        case "appear":
            start = rng.uniform(1.5, 3.5)
            return replace(still, opacity=np.clip((_ramp(0, NUM_FRAMES - 1) - start) / 8, 0, 1))
    raise ValueError(f"The motion {motion!r} is unknown.")


def _still(x: float, y: float, radius: float) -> Trajectory:
    return Trajectory(_ramp(x, x), _ramp(y, y), _ramp(radius, radius), _ramp(0, 0), _ramp(1, 1))


def _ramp(first: float, last: float) -> Values:
    return np.linspace(first, last, NUM_FRAMES, dtype=np.float32)


def _straight(direction: tuple[int, int], centred: bool, rng: random.Random) -> Trajectory:
    dx, dy = direction
    distance = rng.uniform(17, 23) if centred else rng.uniform(22, 30)
    start = rng.uniform(-3, 3) if centred else -distance / 2 + rng.uniform(-3, 3)
    across = rng.uniform(-9, 9)
    x = CLIP_SIZE / 2 + start * dx + across * abs(dy)
    y = CLIP_SIZE / 2 + start * dy + across * abs(dx)
    still = _still(x, y, rng.uniform(10.5, 13.5))
    return replace(still, x=_ramp(x, x + distance * dx), y=_ramp(y, y + distance * dy))


def _circular(rng: random.Random) -> Trajectory:
    """One round, clockwise from its highest point."""
    radius = rng.uniform(9, 11.5)
    x, y = CLIP_SIZE / 2 + rng.uniform(-5, 5), CLIP_SIZE / 2 + rng.uniform(-4, 1)
    angle = _ramp(0, 2 * math.pi)
    still = _still(x, y, rng.uniform(10.0, 12.5))
    return replace(still, x=x + radius * np.sin(angle), y=y - radius * np.cos(angle))
