"""Measures whether pictures keep to their prompts, on prompts that were never trained on, and whether edits do."""

import random
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from training.shapes.judge import CRITERIA, judge
from training.shapes.networks import GUIDANCE, STEPS
from training.shapes.rendering import IMAGE_SIZE, ImageArray, render_scene
from training.shapes.scenes import Scene, SceneObject, sample_scene, scene_prompt

BATCH = 16
SEED = 12345


@dataclass(frozen=True, slots=True)
class EvaluationScores:
    """The part of the pictures that keep each claim, for `all` kinds of scene and each of them; seconds a picture."""

    num_images: int
    pass_rates: dict[str, dict[str, float]]
    seconds_per_image: float

    def table(self) -> str:
        """The scores as a Markdown table."""
        columns = [*CRITERIA, "all"]
        lines = ["| scenes | pictures | " + " | ".join(columns) + " |", "|---|" + "---|" * (len(columns) + 1)]
        for kind, kept in self.pass_rates.items():
            figures = " | ".join(f"{kept[claim]:.3f}" for claim in columns)
            lines.append(f"| {kind} | {kept['pictures']:.0f} | {figures} |")
        return "\n".join(lines)


def held_out_scenes(count: int, seed: int = SEED) -> list[Scene]:
    """Scenes that no training set holds; the same seed gives the same ones."""
    rng = random.Random(seed)
    return [sample_scene(rng, held_out=True) for _ in range(count)]


def generate_images(
    pipeline: Any, prompts: list[str], steps: int = STEPS, guidance: float = GUIDANCE, seed: int = 0
) -> list[ImageArray]:
    """Pictures of the prompts; picture i has the seed `seed + i`."""
    pictures: list[ImageArray] = []
    for first in range(0, len(prompts), BATCH):
        some = prompts[first : first + BATCH]
        images = pipeline(
            some,
            num_inference_steps=steps,
            guidance_scale=guidance,
            width=IMAGE_SIZE,
            height=IMAGE_SIZE,
            output_type="np",
            generator=[torch.Generator("cpu").manual_seed(seed + first + i) for i in range(len(some))],
        ).images
        pictures += list((images * 255).round().astype(np.uint8))
    return pictures


def evaluate(pipeline: Any, count: int, steps: int = STEPS, guidance: float = GUIDANCE) -> EvaluationScores:
    """Draw `count` held-out scenes from their complete prompts and judge the pictures."""
    scenes = held_out_scenes(count)
    started = time.monotonic()
    pictures = generate_images(pipeline, [scene_prompt(scene) for scene in scenes], steps, guidance)
    seconds = (time.monotonic() - started) / count
    return score(pictures, scenes, seconds)


def score(pictures: list[ImageArray], scenes: list[Scene], seconds: float = 0.0) -> EvaluationScores:
    """Judge pictures against their scenes."""
    verdicts = [(scene.kind, judge(picture, scene)) for picture, scene in zip(pictures, scenes, strict=True)]
    kept: dict[str, dict[str, float]] = {}
    for group in ("all", "one", "group", "pair"):
        some = [verdict for kind, verdict in verdicts if group in ("all", kind)]
        if some:
            kept[group] = {claim: float(np.mean([verdict[claim] for verdict in some])) for claim in (*CRITERIA, "all")}
            kept[group]["pictures"] = len(some)
    return EvaluationScores(len(pictures), kept, seconds)


@dataclass(frozen=True, slots=True)
class EditResult:
    """A picture before and after, what was asked, and whether the result is what was asked."""

    before: ImageArray
    after: ImageArray
    prompt: str
    is_correct: bool


def inpaint(pipeline: Any, count: int, steps: int = STEPS, guidance: float = GUIDANCE) -> list[EditResult]:
    """Replace the second thing of held-out pairs by another, under a mask of its half of the picture."""
    from diffusers import StableDiffusionInpaintPipeline

    rng = random.Random(SEED)
    painter = StableDiffusionInpaintPipeline(**pipeline.components, requires_safety_checker=False)
    painter.set_progress_bar_config(disable=True)
    edits: list[EditResult] = []
    while len(edits) < count:
        before = sample_scene(rng, held_out=True)
        after = sample_scene(rng, held_out=True)
        if before.kind != "pair" or after.kind != "pair" or after.objects[1].colour == before.background:
            continue
        new = after.objects[1]
        wanted = Scene(
            before.background,
            (before.objects[0], SceneObject(new.colour, new.shape, new.size, before.objects[1].place)),
            before.relation,
        )
        source, mask = Image.fromarray(render_scene(before)), _half(before.objects[1].place)
        image = painter(
            scene_prompt(wanted),
            image=source,
            mask_image=mask,
            strength=1.0,
            width=IMAGE_SIZE,
            height=IMAGE_SIZE,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=torch.Generator("cpu").manual_seed(len(edits)),
        ).images[0]
        # The VAE changes every pixel a little: what was not to be edited comes from the source.
        picture = np.asarray(Image.composite(image, source, mask))
        edits.append(EditResult(np.asarray(source), picture, scene_prompt(wanted), judge(picture, wanted)["all"]))
    return edits


def image_to_image(
    pipeline: Any, count: int, strength: float, steps: int = STEPS, guidance: float = GUIDANCE
) -> list[EditResult]:
    """Give held-out single things another colour, from the picture of the old one at a strength."""
    from diffusers import StableDiffusionImg2ImgPipeline

    rng = random.Random(SEED)
    painter = StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
    painter.set_progress_bar_config(disable=True)
    edits: list[EditResult] = []
    while len(edits) < count:
        before, other = sample_scene(rng, held_out=True), sample_scene(rng, held_out=True)
        thing, colour = before.objects[0], other.objects[0].colour
        if before.kind != "one" or colour in (before.background, thing.colour):
            continue
        wanted = Scene(before.background, (SceneObject(colour, thing.shape, thing.size, thing.place),))
        source = Image.fromarray(render_scene(before))
        image = painter(
            scene_prompt(wanted),
            image=source,
            strength=strength,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=torch.Generator("cpu").manual_seed(len(edits)),
        ).images[0]
        edits.append(
            EditResult(
                np.asarray(source), np.asarray(image), scene_prompt(wanted), judge(np.asarray(image), wanted)["all"]
            )
        )
    return edits


def _half(place: str) -> Image.Image:
    """White over the half of the picture in which the place lies."""
    half = IMAGE_SIZE // 2
    box = {
        "left": (0, 0, half, IMAGE_SIZE),
        "right": (half, 0, IMAGE_SIZE, IMAGE_SIZE),
        "top": (0, 0, IMAGE_SIZE, half),
        "bottom": (0, half, IMAGE_SIZE, IMAGE_SIZE),
    }[place]
    image = Image.new("L", (IMAGE_SIZE, IMAGE_SIZE))
    image.paste(255, box)
    return image
