"""Render clips with numpy, anti-aliased."""

import math
import random
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from training.moving_shapes.scenes import MovingScene, sample_scene
from training.moving_shapes.trajectories import CLIP_SIZE, NUM_FRAMES, Trajectory, Values, sample_trajectory
from training.shapes.rendering import RING_HOLE, STAR_WAIST
from training.shapes.scenes import COLOURS

SQUARE_SIDE = 0.9
"""Half of a square's side by its radius, as in the images of `training.shapes`."""

SIZE_FACTORS = {"triangle": 1.2, "star": 1.2}
"""Triangles and stars are drawn larger: at the same radius they cover less than half of a disc."""

Clip = npt.NDArray[np.uint8]
"""RGB, [frames, CLIP_SIZE, CLIP_SIZE, 3]."""

_CENTRES = np.arange(CLIP_SIZE, dtype=np.float32) + 0.5


def coverage(shape: str, trajectory: Trajectory) -> Values:
    """Return the share of each pixel that the shape covers, float32 [frames, CLIP_SIZE, CLIP_SIZE]."""
    x = _CENTRES[None, None, :] - trajectory.x[:, None, None]
    y = _CENTRES[None, :, None] - trajectory.y[:, None, None]
    cos, sin = np.cos(trajectory.angle)[:, None, None], np.sin(trajectory.angle)[:, None, None]
    inside = depth_inside(shape, x * cos + y * sin, y * cos - x * sin, trajectory.radius[:, None, None])
    covered: Values = np.clip(inside + 0.5, 0, 1)
    return covered


def depth_inside(shape: str, x: Values, y: Values, radius: Values) -> Values:
    """Return the distance to the outline in pixels, positive inside, of a shape at the origin.

    `x`, `y` and `radius` are in pixels, and of shapes that broadcast.
    """
    depth: Values
    if shape == "square":
        depth = SQUARE_SIDE * radius - np.maximum(np.abs(x), np.abs(y))
        return depth
    if shape == "triangle":
        depth = radius / 2 - np.maximum(y, math.sqrt(0.75) * np.abs(x) - y / 2)
        return depth
    distance = np.hypot(x, y)
    if shape == "star":
        # Folded into one of ten equal sectors, the outline is a line from a tip to a waist.
        fifth = 2 * math.pi / 5
        angle = np.abs((np.arctan2(x, -y) + fifth / 2) % fifth - fifth / 2)
        across, along = STAR_WAIST * math.sin(fifth / 2), 1 - STAR_WAIST * math.cos(fifth / 2)
        length = math.hypot(across, along)
        depth = ((radius - distance * np.cos(angle)) * across - distance * np.sin(angle) * along) / length
    elif shape == "ring":
        depth = np.minimum(radius - distance, distance - RING_HOLE * radius)
    else:
        depth = radius - distance
    return depth


def render_clip(scene: MovingScene, trajectory: Trajectory) -> Clip:
    """Render the scene with its shape on this trajectory."""
    factor = np.float32(SIZE_FACTORS.get(scene.shape, 1))
    share = (
        coverage(scene.shape, replace(trajectory, radius=factor * trajectory.radius))
        * trajectory.opacity[:, None, None]
    )[..., None]
    background, colour = (np.array(COLOURS[name], np.float32) for name in (scene.background, scene.colour))
    clip: Clip = np.rint(background + share * (colour - background)).astype(np.uint8)
    return clip


def sample_dataset(count: int, seed: int, held_out: bool = False) -> list[tuple[MovingScene, Trajectory]]:
    """Return random scenes with their trajectories; the same seed gives the same ones."""
    rng = random.Random(seed)
    scenes = [sample_scene(rng, held_out) for _ in range(count)]
    return [(scene, sample_trajectory(scene.motion, rng)) for scene in scenes]


def render_dataset(count: int, seed: int, held_out: bool = False) -> tuple[Clip, list[MovingScene]]:
    """Return clips [count, NUM_FRAMES, CLIP_SIZE, CLIP_SIZE, 3] of `sample_dataset`, and their scenes."""
    clips = np.empty((count, NUM_FRAMES, CLIP_SIZE, CLIP_SIZE, 3), np.uint8)
    samples = sample_dataset(count, seed, held_out)
    for clip, (scene, trajectory) in zip(clips, samples, strict=True):
        clip[:] = render_clip(scene, trajectory)
    return clips, [scene for scene, _ in samples]
