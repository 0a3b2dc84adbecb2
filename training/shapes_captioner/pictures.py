"""Pictures of coloured shapes by their geometry, and random pictures of three worlds.

The worlds are the scenes of the model `shapes`, the first frames of the clips of `moving-shapes`, and shapes of any
size at any place, which edits of such pictures have.
"""

import hashlib
import math
import random
from dataclasses import dataclass, replace

from training.moving_shapes.rendering import SIZE_FACTORS
from training.moving_shapes.scenes import MovingScene
from training.moving_shapes.scenes import sample_scene as sample_moving_scene
from training.moving_shapes.trajectories import CLIP_SIZE, Trajectory, sample_trajectory
from training.shapes.rendering import IMAGE_SIZE
from training.shapes.scenes import COLOURS, PLACES, RADIUS, SHAPES, Scene, sample_scene

SIZE_BOUNDS = (0.168, 0.198)
"""A shape is small below the first radius and large above the second, in shorter sides of the picture. Between them it
may be called either. The scenes of `shapes` have about 0.15 and 0.22."""

THIRDS = ((0.33, 0.42), (0.58, 0.67))
"""Where the left third (the upper one) surely ends and the middle third surely begins, then the same for the right (the
lower) one, in sides of the picture. A place in between may be called either."""

SEPARATION = 0.05
"""Smallest distance by which a shape is left of or above another, in sides of the picture."""

HELD_OUT_SHARE = 10
"""Of so many combinations of background, colours and shapes, one is never trained on."""

WORLDS = {"scene": 0.45, "first frame": 0.25, "free": 0.3}
"""Share of the training's pictures that comes from each world."""

ZOOMED_SHARE, MIN_ZOOM = 0.25, 0.6
WIDENED_SHARE, MAX_WIDENING = 0.1, 2.0
"""Share of the pictures that are wider than high, or higher than wide, and the most that they are so."""

_AXIS = {-1: ("left", "top"), 1: ("right", "bottom")}


@dataclass(frozen=True, slots=True)
class PlacedShape:
    """One shape. Colour and shape are keys of `COLOURS` and `SHAPES`.

    `x` and `y`, of its centre, are in widths and heights of the picture, and `radius` is in its shorter side.
    """

    colour: str
    shape: str
    x: float
    y: float
    radius: float

    @property
    def sizes(self) -> set[str]:
        """Every size that it may be called."""
        small, large = SIZE_BOUNDS
        return {name for name, fits in (("small", self.radius < large), ("large", self.radius > small)) if fits}

    @property
    def places(self) -> set[str]:
        """Every place, a key of `PLACES`, that it may be said to be at."""
        return {_place_name(column, row) for column in _thirds(self.x) for row in _thirds(self.y)}


@dataclass(frozen=True, slots=True)
class Picture:
    """Shapes on a plain background.

    `kind` is `one`, `group` or `pair` (scenes of `shapes`), `first frame` or `free`. `aspect` is its width by its
    height.
    """

    background: str
    shapes: tuple[PlacedShape, ...]
    kind: str
    aspect: float = 1.0

    @property
    def extent(self) -> tuple[float, float]:
        """Width and height in shorter sides."""
        return max(1.0, self.aspect), max(1.0, 1 / self.aspect)

    @property
    def is_held_out(self) -> bool:
        """True for a tenth of all combinations of background, colours and shapes, of which no picture is trained on.

        A group counts as one of its shapes, and a pair is the same in both orders.
        """
        parts = [self.background, *sorted({f"{item.colour} {item.shape}" for item in self.shapes})]
        return bool(self.shapes) and hashlib.sha256("|".join(parts).encode()).digest()[0] % HELD_OUT_SHARE == 0

    @property
    def are_alike(self) -> bool:
        """True if there are several shapes, which look the same: they are described together."""
        return len(self.shapes) > 1 and len({(s.colour, s.shape, tuple(sorted(s.sizes))) for s in self.shapes}) == 1


def sample_picture(rng: random.Random) -> Picture:
    """Return a random picture of the training set, from one of the `WORLDS`."""
    sample = {"scene": _sample_scene_picture, "first frame": _sample_first_frame, "free": _sample_free}
    world = rng.choices(list(WORLDS), list(WORLDS.values()))[0]
    while True:
        picture = sample[world](rng)
        if not picture.is_held_out:
            return _widened(picture, rng) if rng.random() < WIDENED_SHARE else picture


def sample_held_out(rng: random.Random) -> Picture:
    """Return a random picture of shapes of any size at any place that is never trained on."""
    while True:
        picture = _sample_free(rng)
        if picture.is_held_out:
            return picture


def scene_picture(scene: Scene) -> Picture:
    """Return the picture of a scene of `shapes`."""
    shapes = []
    for item in scene.objects:
        x, y = PLACES[item.place]
        radius = RADIUS[item.size] / IMAGE_SIZE
        shapes.append(PlacedShape(item.colour, item.shape, x / IMAGE_SIZE, y / IMAGE_SIZE, radius))
    return Picture(scene.background, tuple(shapes), scene.kind)


def first_frame_picture(scene: MovingScene, trajectory: Trajectory) -> Picture:
    """Return the first frame of a clip of `moving-shapes`; that of a shape that fades in is empty."""
    if trajectory.opacity[0] == 0:
        return Picture(scene.background, (), "first frame")
    x, y, radius = (float(values[0]) / CLIP_SIZE for values in (trajectory.x, trajectory.y, trajectory.radius))
    radius *= SIZE_FACTORS.get(scene.shape, 1)
    return Picture(scene.background, (PlacedShape(scene.colour, scene.shape, x, y, radius),), "first frame")


def _sample_scene_picture(rng: random.Random) -> Picture:
    """Return a training scene of `shapes`: shifted and scaled a little, or as seen from further away."""
    picture = scene_picture(sample_scene(rng))
    if rng.random() < ZOOMED_SHARE:
        zoom = spread = rng.uniform(MIN_ZOOM, 1)
        dx, dy = (rng.uniform(-0.5, 0.5) * (1 - zoom) for _ in range(2))
    else:  # as `training.shapes.rendering.render_scene` does
        zoom, spread = rng.uniform(0.97, 1.03), 1.0
        dx, dy = (rng.uniform(-2, 2) / IMAGE_SIZE for _ in range(2))
    shapes = [
        replace(s, x=0.5 + (s.x - 0.5) * spread + dx, y=0.5 + (s.y - 0.5) * spread + dy, radius=s.radius * zoom)
        for s in picture.shapes
    ]
    return replace(picture, shapes=tuple(shapes))


def _widened(picture: Picture, rng: random.Random) -> Picture:
    """Return a picture that has more background at the left and right, or at the top and bottom."""
    longer = rng.uniform(1.1, MAX_WIDENING)
    before = rng.uniform(0, longer - 1)
    if rng.random() < 0.5:
        shapes = [replace(item, x=(item.x + before) / longer) for item in picture.shapes]
    else:
        shapes = [replace(item, y=(item.y + before) / longer) for item in picture.shapes]
        longer = 1 / longer
    return replace(picture, shapes=tuple(shapes), aspect=longer)


def _sample_first_frame(rng: random.Random) -> Picture:
    scene = sample_moving_scene(rng)
    return first_frame_picture(scene, sample_trajectory(scene.motion, rng))


def _sample_free(rng: random.Random) -> Picture:
    background = rng.choice(list(COLOURS))
    colours = [name for name in COLOURS if name != background]
    shapes: list[PlacedShape] = []
    for _ in range(rng.choice((1, 2, 2, 3))):
        for _ in range(20):
            radius = rng.uniform(0.12, 0.24)
            x, y = (rng.uniform(radius + 0.01, 0.99 - radius) for _ in range(2))
            if all(math.hypot(x - s.x, y - s.y) > radius + s.radius + 0.02 for s in shapes):
                shapes.append(PlacedShape(rng.choice(colours), rng.choice(SHAPES), x, y, radius))
                break
    return Picture(background, tuple(shapes), "free")


def _thirds(at: float) -> set[int]:
    (first, second), (third, fourth) = THIRDS
    possible = {-1: at < second, 0: first < at < fourth, 1: at > third}
    return {number for number, fits in possible.items() if fits}


def _place_name(column: int, row: int) -> str:
    words = [*([_AXIS[row][1]] if row else []), *([_AXIS[column][0]] if column else [])]
    return " ".join(words) or "centre"
