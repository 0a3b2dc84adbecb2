"""Measure how well clips follow their prompts, on scenes that were held out of the training."""

import random
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from training.common.scores import EvaluationScores, score_groups
from training.moving_shapes.judge import CRITERIA, judge
from training.moving_shapes.networks import GUIDANCE, STEPS
from training.moving_shapes.prompts import scene_prompt
from training.moving_shapes.rendering import Clip, render_clip
from training.moving_shapes.scenes import MOTIONS, MovingScene, sample_scene
from training.moving_shapes.tokenizer import MAX_PROMPT_TOKENS
from training.moving_shapes.trajectories import CLIP_SIZE, NUM_FRAMES, sample_trajectory
from training.shapes.scenes import COLOURS

BATCH = 8
SEED = 12345
REMIX_STRENGTH = 0.8

MAX_LEVEL_ERROR, MIN_EQUAL_SHARE = 16, 0.9
"""The first frame is kept if so many of its pixels are within so many of 255 levels."""


def held_out_scenes(count: int, seed: int = SEED) -> list[MovingScene]:
    """Return scenes that the training never uses; the same seed gives the same scenes."""
    rng = random.Random(seed)
    return [sample_scene(rng, held_out=True) for _ in range(count)]


def held_out_prompts(scenes: list[MovingScene], seed: int = SEED) -> list[str]:
    """Return a prompt in varied words for each scene."""
    rng = random.Random(seed)
    return [scene_prompt(scene, rng) for scene in scenes]


def generate_clips(
    pipeline: Any, prompts: list[str], steps: int = STEPS, guidance: float = GUIDANCE, seed: int = 0
) -> list[Clip]:
    """Generate one clip [frames, CLIP_SIZE, CLIP_SIZE, 3] for each prompt; clip i has the seed `seed + i`."""
    clips: list[Clip] = []
    for first in range(0, len(prompts), BATCH):
        batch = prompts[first : first + BATCH]
        generators = [torch.Generator("cpu").manual_seed(seed + first + i) for i in range(len(batch))]
        clips += _clips(pipeline(batch, num_frames=NUM_FRAMES, generator=generators, **_options(steps, guidance)))
    return clips


def _options(steps: int, guidance: float) -> dict[str, Any]:
    return {
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "width": CLIP_SIZE,
        "height": CLIP_SIZE,
        "max_sequence_length": MAX_PROMPT_TOKENS,
        "output_type": "np",
    }


def _embeddings(pipeline: Any, prompt: str) -> dict[str, Any]:
    """Return the states of the prompt and of an empty one; the pipelines for edits read text only with `ftfy`."""
    positive, negative = pipeline.encode_prompt(prompt, max_sequence_length=MAX_PROMPT_TOKENS)
    return {"prompt_embeds": positive, "negative_prompt_embeds": negative}


def _clips(output: Any) -> list[Clip]:
    return list((np.asarray(output.frames) * 255).round().astype(np.uint8))


def evaluate(pipeline: Any, count: int, steps: int = STEPS, guidance: float = GUIDANCE) -> EvaluationScores:
    """Generate clips of `count` held-out scenes from prompts in varied words, and judge them."""
    scenes = held_out_scenes(count)
    started = time.monotonic()
    clips = generate_clips(pipeline, held_out_prompts(scenes), steps, guidance)
    seconds = (time.monotonic() - started) / count
    return score(clips, scenes, seconds)


def score(clips: list[Clip], scenes: list[MovingScene], seconds: float = 0.0) -> EvaluationScores:
    """Judge clips against their scenes. `seconds` is the time per clip."""
    verdicts = [(scene.motion, judge(clip, scene)) for clip, scene in zip(clips, scenes, strict=True)]
    return score_groups(verdicts, CRITERIA, MOTIONS, group_title="motion", counted="clips", seconds=seconds)


@dataclass(frozen=True, slots=True)
class EditResult:
    """A clip or a first frame before an edit, the clip after it, its prompt, and the judge's verdicts on that."""

    before: Clip
    after: Clip
    prompt: str
    verdict: dict[str, bool]


def image_to_video(pipeline: Any, count: int, steps: int = STEPS, guidance: float = GUIDANCE) -> list[EditResult]:
    """Animate the rendered first frame of held-out scenes. The shape is near the centre, so only the prompt tells the
    motion. The verdicts have `first frame` besides the judge's criteria."""
    from diffusers import WanImageToVideoPipeline

    rng = random.Random(SEED)
    parts = {name: part for name, part in pipeline.components.items() if name != "transformer_2"}
    edit_pipeline = WanImageToVideoPipeline(**parts, expand_timesteps=True)
    edit_pipeline.set_progress_bar_config(disable=True)
    edits = []
    for number in range(count):
        scene = sample_scene(rng, held_out=True)
        first = render_clip(scene, sample_trajectory(scene.motion, rng, from_centre=True))[0]
        prompt = scene_prompt(scene, rng)
        after = _clips(
            edit_pipeline(
                Image.fromarray(first),
                **_embeddings(pipeline, prompt),
                num_frames=NUM_FRAMES,
                generator=torch.Generator("cpu").manual_seed(number),
                **_options(steps, guidance),
            )
        )[0]
        near = np.abs(after[0].astype(int) - first).max(-1) <= MAX_LEVEL_ERROR
        verdict = {**judge(after, scene), "first frame": bool(near.mean() >= MIN_EQUAL_SHARE)}
        edits.append(EditResult(first, after, prompt, verdict))
    return edits


def remix(
    pipeline: Any,
    count: int,
    strength: float = REMIX_STRENGTH,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
) -> list[EditResult]:
    """Give the shape of held-out rendered clips another colour by video to video at this strength."""
    from diffusers import WanVideoToVideoPipeline

    rng = random.Random(SEED)
    parts = {name: part for name, part in pipeline.components.items() if name != "transformer_2"}
    edit_pipeline = WanVideoToVideoPipeline(**parts)
    edit_pipeline.set_progress_bar_config(disable=True)
    # diffusers counts the levels of the VAE here and leaves its patches out.
    edit_pipeline.vae_scale_factor_spatial = pipeline.vae.config.scale_factor_spatial
    edits = []
    for number in range(count):
        scene = sample_scene(rng, held_out=True)
        before = render_clip(scene, sample_trajectory(scene.motion, rng))
        colours = [name for name in COLOURS if name not in (scene.colour, scene.background)]
        target = replace(scene, colour=rng.choice(colours))
        prompt = scene_prompt(target, rng)
        options = _options(steps, guidance)
        after = _clips(
            edit_pipeline(
                [Image.fromarray(frame) for frame in before],
                **_embeddings(pipeline, prompt),
                strength=strength,
                generator=torch.Generator("cpu").manual_seed(number),
                **options,
            )
        )[0]
        edits.append(EditResult(before, after, prompt, judge(after, target)))
    return edits


def edit_rates(edits: list[EditResult]) -> dict[str, float]:
    """Return the share of edits that meet each of their criteria."""
    return {name: float(np.mean([edit.verdict[name] for edit in edits])) for name in edits[0].verdict}
