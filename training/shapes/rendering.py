"""Scenes as pictures."""

import functools
import math
import random

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from training.shapes.scenes import COLOURS, PLACES, RADIUS, Scene, sample_scene

IMAGE_SIZE = 128
"""Pixels along either side of a picture."""

OVERSAMPLING = 4
RING_HOLE = 0.55
STAR_WAIST = 0.45

ImageArray = npt.NDArray[np.uint8]
"""RGB, [SIZE, SIZE, 3]."""


def shape_mask(shape: str, x: float, y: float, radius: float) -> Image.Image:
    """Anti-aliased coverage of one shape, 0 to 255, mode L; `x`, `y` and `radius` in pixels."""
    image = Image.new("L", (IMAGE_SIZE * OVERSAMPLING, IMAGE_SIZE * OVERSAMPLING))
    draw = ImageDraw.Draw(image)
    x, y, radius = x * OVERSAMPLING, y * OVERSAMPLING, radius * OVERSAMPLING
    if shape in ("circle", "ring"):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
        if shape == "ring":
            hole = radius * RING_HOLE
            draw.ellipse((x - hole, y - hole, x + hole, y + hole), fill=0)
    else:
        draw.polygon([(x + radius * dx, y + radius * dy) for dx, dy in _corners(shape)], fill=255)
    return image.reduce(OVERSAMPLING)


@functools.cache
def _corners(shape: str) -> tuple[tuple[float, float], ...]:
    """Corners of a shape of radius 1 around the origin; all have their centre of mass there."""
    if shape == "square":
        return ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9))
    count = 3 if shape == "triangle" else 10
    reach = [1.0 if shape == "triangle" or i % 2 == 0 else STAR_WAIST for i in range(count)]
    angles = [2 * math.pi * i / count for i in range(count)]
    return tuple((r * math.sin(a), -r * math.cos(a)) for r, a in zip(reach, angles, strict=True))


def render_scene(scene: Scene, rng: random.Random | None = None) -> ImageArray:
    """The scene as a picture; with `rng` all things are moved and scaled a little, together."""
    dx, dy, scale = (rng.uniform(-2, 2), rng.uniform(-2, 2), rng.uniform(0.97, 1.03)) if rng else (0, 0, 1)
    image = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), COLOURS[scene.background])
    for thing in scene.objects:
        x, y = PLACES[thing.place]
        image.paste(COLOURS[thing.colour], mask=shape_mask(thing.shape, x + dx, y + dy, RADIUS[thing.size] * scale))
    return np.asarray(image)


def render_dataset(count: int, seed: int, held_out: bool = False) -> tuple[ImageArray, list[Scene]]:
    """Pictures [count, SIZE, SIZE, 3] and their scenes; the same seed gives the same ones."""
    rng = random.Random(seed)
    scenes = [sample_scene(rng, held_out) for _ in range(count)]
    return np.stack([render_scene(scene, rng) for scene in scenes]), scenes
