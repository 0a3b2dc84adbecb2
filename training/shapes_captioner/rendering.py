"""Render pictures at any size, anti-aliased, with the changes that files and networks make to them."""

import io
import math
import random

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from training.moving_shapes.rendering import depth_inside
from training.shapes.scenes import COLOURS
from training.shapes_captioner.pictures import Picture, PlacedShape

SIDES = {64: 0.5, 128: 0.4, 160: 0.1}
"""Share of the training's pictures whose shorter side has so many pixels."""

Pixels = npt.NDArray[np.uint8]
"""RGB, [height, width, 3]."""
Coverage = npt.NDArray[np.float32]


def coverage(item: PlacedShape, side: int, extent: tuple[float, float] = (1, 1)) -> Coverage:
    """Return the share of each pixel that the shape covers, float32[height, width].

    `side` is the shorter side in pixels, and `extent` the size of the picture in shorter sides.
    """
    width, height = (round(side * length) for length in extent)
    covered = np.zeros((height, width), np.float32)
    x, y, radius = item.x * width, item.y * height, item.radius * side
    left, top = (max(0, math.floor(centre - radius) - 1) for centre in (x, y))
    right, bottom = min(width, math.ceil(x + radius) + 1), min(height, math.ceil(y + radius) + 1)
    across = np.arange(left, right, dtype=np.float32)[None] + np.float32(0.5 - x)
    down = np.arange(top, bottom, dtype=np.float32)[:, None] + np.float32(0.5 - y)
    across, down = np.broadcast_arrays(across, down)
    inside = depth_inside(item.shape, across, down, np.array(radius, np.float32))
    covered[top:bottom, left:right] = np.clip(inside + 0.5, 0, 1)
    return covered


def render(picture: Picture, side: int) -> Pixels:
    """Render a picture whose shorter side has `side` pixels."""
    width, height = (round(side * length) for length in picture.extent)
    pixels = np.full((height, width, 3), COLOURS[picture.background], np.float32)
    for item in picture.shapes:
        share = coverage(item, side, picture.extent)[..., None]
        pixels += share * (np.array(COLOURS[item.colour], np.float32) - pixels)
    return np.rint(pixels).astype(np.uint8)


def render_varied(picture: Picture, rng: random.Random) -> Image.Image:
    """Render a picture at a random size, some with the noise, blur, tint or compression that real files have."""
    side = rng.choices(list(SIDES), list(SIDES.values()))[0]
    pixels = render(picture, side)
    if rng.random() < 0.3:
        tint = np.array([rng.uniform(-8, 8) for _ in range(3)], np.float32)
        noise = np.random.default_rng(rng.getrandbits(32)).standard_normal(pixels.shape, np.float32)
        pixels = np.rint(pixels + tint + rng.uniform(0, 6) * noise).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(pixels)
    if rng.random() < 0.1:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.8) * side / 64))
    if rng.random() < 0.1:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=rng.randint(60, 95))
        image = Image.open(file).convert("RGB")
    return image


def render_other(rng: random.Random) -> Image.Image:
    """Return a picture without shapes of this world: smooth colours, stripes or clutter."""
    noise = np.random.default_rng(rng.getrandbits(32))
    kind = rng.randrange(3)
    if kind == 0:
        cells = noise.integers(0, 256, (rng.randint(2, 8), rng.randint(2, 8), 3))
        return Image.fromarray(cells.astype(np.uint8)).resize((64, 64), Image.Resampling.BICUBIC)
    if kind == 1:
        stripes = Image.fromarray(noise.integers(0, 256, (1, rng.randint(3, 24), 3)).astype(np.uint8))
        angle = rng.choice((0, 90, rng.uniform(0, 180)))
        return stripes.resize((128, 128), Image.Resampling.NEAREST).rotate(angle).crop((20, 20, 108, 108))
    image = Image.new("RGB", (128, 128), tuple(noise.integers(0, 256, 3)))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(15, 60)):
        corners = [rng.uniform(-10, 138) for _ in range(rng.choice((4, 6, 8)))]
        draw.line(corners, fill=tuple(noise.integers(0, 256, 3)), width=rng.randint(1, 12))
    return image
