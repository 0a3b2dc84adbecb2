"""Render scenes to images."""

import functools
import math
import random

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from training.shapes.scenes import COLOURS, PLACES, RADIUS, Scene, sample_scene

IMAGE_SIZE = 128
"""Width and height of an image, in pixels."""

OVERSAMPLING = 4
RING_HOLE = 0.55
STAR_WAIST = 0.45

ImageArray = npt.NDArray[np.uint8]
"""RGB, [IMAGE_SIZE, IMAGE_SIZE, 3], or [n, IMAGE_SIZE, IMAGE_SIZE, 3] for several images."""


def shape_mask(shape: str, x: float, y: float, radius: float) -> Image.Image:
    """Return the anti-aliased coverage of one shape, 0 to 255, in mode L; `x`, `y` and `radius` are in pixels."""
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
    """Return the corners of a shape of radius 1 whose centre of mass is the origin."""
    if shape == "square":
        return ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9))
    count = 3 if shape == "triangle" else 10
    reach = [1.0 if shape == "triangle" or i % 2 == 0 else STAR_WAIST for i in range(count)]
    angles = [2 * math.pi * i / count for i in range(count)]
    return tuple((r * math.sin(a), -r * math.cos(a)) for r, a in zip(reach, angles, strict=True))


def render_scene(scene: Scene, rng: random.Random | None = None) -> ImageArray:
    """Render a scene. With `rng`, all objects are shifted and scaled a little, by the same amount."""
    dx, dy, scale = (rng.uniform(-2, 2), rng.uniform(-2, 2), rng.uniform(0.97, 1.03)) if rng else (0, 0, 1)
    image = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), COLOURS[scene.background])
    for item in scene.objects:
        x, y = PLACES[item.place]
        image.paste(COLOURS[item.colour], mask=shape_mask(item.shape, x + dx, y + dy, RADIUS[item.size] * scale))
    return np.asarray(image)


def render_dataset(count: int, seed: int, held_out: bool = False) -> tuple[ImageArray, list[Scene]]:
    """Return images [count, IMAGE_SIZE, IMAGE_SIZE, 3] and their scenes; the same seed gives the same images."""
    rng = random.Random(seed)
    scenes = [sample_scene(rng, held_out) for _ in range(count)]
    return np.stack([render_scene(scene, rng) for scene in scenes]), scenes
