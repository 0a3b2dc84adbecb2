"""Scenes of one coloured shape that moves: their vocabulary and random sampling."""

import hashlib
import random
from dataclasses import dataclass

from training.shapes.scenes import COLOURS, SHAPES

MOTIONS = ("left", "right", "up", "down", "circle", "grow", "shrink", "turn", "appear")
"""`circle` goes round clockwise, `turn` rotates clockwise in its place, and `appear` fades in."""

TURNING_SHAPES = ("square", "triangle", "star")
"""Shapes whose rotation can be seen."""

HELD_OUT_SHARE = 10
"""One scene in so many is never trained on."""


@dataclass(frozen=True, slots=True)
class MovingScene:
    """One shape, its motion and a plain background. The fields are keys of `COLOURS`, `SHAPES` and `MOTIONS`."""

    background: str
    colour: str
    shape: str
    motion: str

    @property
    def is_held_out(self) -> bool:
        """True for the tenth of all scenes that the training never uses; a hash of the scene chooses it."""
        text = f"{self.colour} {self.shape} {self.motion} {self.background}"
        return hashlib.sha256(text.encode()).digest()[0] % HELD_OUT_SHARE == 0


def sample_scene(rng: random.Random, held_out: bool = False) -> MovingScene:
    """Return a random scene of the training set, or with `held_out` one that is never trained on."""
    while True:
        scene = _any_scene(rng)
        if scene.is_held_out == held_out:
            return scene


def _any_scene(rng: random.Random) -> MovingScene:
    background = "white" if rng.random() < 0.12 else rng.choice(list(COLOURS))
    colour = rng.choice([name for name in COLOURS if name != background])
    motion = rng.choice(MOTIONS)
    return MovingScene(background, colour, rng.choice(TURNING_SHAPES if motion == "turn" else SHAPES), motion)
