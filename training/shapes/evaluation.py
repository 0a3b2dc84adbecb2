"""Measure how well images and edits follow their prompts, on scenes that were held out of the training."""

import random
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from training.common.scores import EvaluationScores, score_groups
from training.shapes.judge import CRITERIA, judge
from training.shapes.networks import GUIDANCE, STEPS
from training.shapes.rendering import IMAGE_SIZE, ImageArray, render_scene
from training.shapes.scenes import Scene, SceneObject, sample_scene, scene_prompt

BATCH = 16
SEED = 12345


def held_out_scenes(count: int, seed: int = SEED) -> list[Scene]:
    """Return scenes that the training never uses; the same seed gives the same scenes."""
    rng = random.Random(seed)
    return [sample_scene(rng, held_out=True) for _ in range(count)]


def generate_images(
    pipeline: Any, prompts: list[str], steps: int = STEPS, guidance: float = GUIDANCE, seed: int = 0
) -> list[ImageArray]:
    """Generate one image for each prompt; image i has the seed `seed + i`."""
    images: list[ImageArray] = []
    for first in range(0, len(prompts), BATCH):
        batch = prompts[first : first + BATCH]
        pixels = pipeline(
            batch,
            num_inference_steps=steps,
            guidance_scale=guidance,
            width=IMAGE_SIZE,
            height=IMAGE_SIZE,
            output_type="np",
            generator=[torch.Generator("cpu").manual_seed(seed + first + i) for i in range(len(batch))],
        ).images
        images += list((pixels * 255).round().astype(np.uint8))
    return images


def evaluate(pipeline: Any, count: int, steps: int = STEPS, guidance: float = GUIDANCE) -> EvaluationScores:
    """Generate images of `count` held-out scenes from their complete prompts, and judge them."""
    scenes = held_out_scenes(count)
    started = time.monotonic()
    images = generate_images(pipeline, [scene_prompt(scene) for scene in scenes], steps, guidance)
    seconds = (time.monotonic() - started) / count
    return score(images, scenes, seconds)


def score(images: list[ImageArray], scenes: list[Scene], seconds: float = 0.0) -> EvaluationScores:
    """Judge images against their scenes. `seconds` is the time per image."""
    verdicts = [(scene.kind, judge(image, scene)) for image, scene in zip(images, scenes, strict=True)]
    return score_groups(
        verdicts, CRITERIA, ("one", "group", "pair"), group_title="scenes", counted="pictures", seconds=seconds
    )


@dataclass(frozen=True, slots=True)
class EditResult:
    """An image before and after an edit, the prompt, and whether the judge accepts the result."""

    before: ImageArray
    after: ImageArray
    prompt: str
    is_correct: bool


def inpaint(pipeline: Any, count: int, steps: int = STEPS, guidance: float = GUIDANCE) -> list[EditResult]:
    """Replace the second object of held-out pairs, under a mask of its half of the image."""
    from diffusers import StableDiffusionInpaintPipeline

    rng = random.Random(SEED)
    edit_pipeline = StableDiffusionInpaintPipeline(**pipeline.components, requires_safety_checker=False)
    edit_pipeline.set_progress_bar_config(disable=True)
    edits: list[EditResult] = []
    while len(edits) < count:
        before = sample_scene(rng, held_out=True)
        after = sample_scene(rng, held_out=True)
        if before.kind != "pair" or after.kind != "pair" or after.objects[1].colour == before.background:
            continue
        new = after.objects[1]
        target = Scene(
            before.background,
            (before.objects[0], SceneObject(new.colour, new.shape, new.size, before.objects[1].place)),
            before.relation,
        )
        source, mask = Image.fromarray(render_scene(before)), _half(before.objects[1].place)
        image = edit_pipeline(
            scene_prompt(target),
            image=source,
            mask_image=mask,
            strength=1.0,
            width=IMAGE_SIZE,
            height=IMAGE_SIZE,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=torch.Generator("cpu").manual_seed(len(edits)),
        ).images[0]
        # The VAE changes every pixel a little, so unmasked pixels are taken from the source.
        after_edit = np.asarray(Image.composite(image, source, mask))
        edits.append(EditResult(np.asarray(source), after_edit, scene_prompt(target), judge(after_edit, target)["all"]))
    return edits


def image_to_image(
    pipeline: Any, count: int, strength: float, steps: int = STEPS, guidance: float = GUIDANCE
) -> list[EditResult]:
    """Recolour the objects of held-out single-object scenes by image-to-image at this strength."""
    from diffusers import StableDiffusionImg2ImgPipeline

    rng = random.Random(SEED)
    edit_pipeline = StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
    edit_pipeline.set_progress_bar_config(disable=True)
    edits: list[EditResult] = []
    while len(edits) < count:
        before, other = sample_scene(rng, held_out=True), sample_scene(rng, held_out=True)
        item, colour = before.objects[0], other.objects[0].colour
        if before.kind != "one" or colour in (before.background, item.colour):
            continue
        target = Scene(before.background, (SceneObject(colour, item.shape, item.size, item.place),))
        source = Image.fromarray(render_scene(before))
        image = edit_pipeline(
            scene_prompt(target),
            image=source,
            strength=strength,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=torch.Generator("cpu").manual_seed(len(edits)),
        ).images[0]
        edits.append(
            EditResult(
                np.asarray(source), np.asarray(image), scene_prompt(target), judge(np.asarray(image), target)["all"]
            )
        )
    return edits


def _half(place: str) -> Image.Image:
    """Return a mask that is white over the half of the image that holds `place`."""
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
