"""Hold the engines of a pipeline against the networks that they were made from, one by one and all together."""

import gc
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from builders.checkpoint import FROM_FILES
from builders.diffusion.loop import Drawn, Engines, Wanted, draw, session
from builders.diffusion.parts import Part, examples
from builders.diffusion.pipeline import Pipeline, class_of, t5_tokens
from builders.diffusion.quiet import quiet
from builders.errors import MissingTools, VerificationFailed

LARGEST_DIFFERENCE = 1e-3
"""Of one number that a part gives, over the largest number that its source gives for the same input."""

LARGEST_LATENT = 1e-2
"""The same of finished latents: small differences grow from step to step."""

LARGEST_PIXEL = 0.05
"""Of one colour of one pixel, of 1."""

RUNS = (
    (1, {"height": 2, "width": 2, "tokens": 8, "patches": 4}),
    (3, {"height": 2, "width": 3, "tokens": 8, "patches": 6}),
    (2, {"height": 5, "width": 1, "tokens": 21, "patches": 35}),
)
"""Batches and sizes, none of them those that were exported; heights and widths in units of the part (`Part.unit`)."""

LATENT_UNIT = 4
"""Cells of the VAE decoder's input for one of the above: it has no unit of its own, and one cell is very few."""

OTHERS = ("safety_checker", "feature_extractor", "image_encoder")
"""What pipelines of diffusers may hold besides, and no picture that is drawn here needs."""

PROMPT, NEGATIVE = "a red cat, 2 hats", "blurred"
IMAGES, STEPS, SEED = 2, 3, 3


@dataclass(frozen=True, slots=True)
class PartFigures:
    """How far an engine is from its network."""

    difference: float
    """Largest difference of a number, over the largest number of the source's output."""
    largest: float
    """The largest number of the source's outputs."""
    runs: int


@dataclass(frozen=True, slots=True)
class PictureFigures:
    """How far pictures of all engines together are from those of diffusers, for the same seed and scheduler."""

    pictures: int
    steps: int
    width: int
    height: int
    latent_difference: float
    """Largest difference of a number of the finished latents, over their largest number."""
    pixel_difference: float
    """Largest difference of a colour of a pixel, of 1."""
    pixel_difference_mean: float


def verify_part(pipeline: Pipeline, part: Part, model: Path) -> PartFigures:
    """Compare one engine with its network. Raises VerificationFailed with the figures, MissingTools."""
    try:
        import torch

        from builders.diffusion.networks import load
    except ModuleNotFoundError as error:
        raise MissingTools(error.name) from error
    quiet()
    network, difference, largest = load(pipeline, part), 0.0, 0.0
    try:
        engine = session(model)
        names = [port.name for port in part.outputs]
        for seed, (batch, sizes) in enumerate(RUNS):
            inputs = examples(part, batch, _scaled(part, sizes), seed=seed + 1)
            with torch.inference_mode():
                found = network(**{name: torch.from_numpy(value) for name, value in inputs.items()})
            theirs = [tensor.numpy() for tensor in (found if isinstance(found, tuple) else (found,))]
            for source, ours in zip(theirs, engine.run(names, inputs), strict=True):
                if ours.shape != source.shape:
                    raise VerificationFailed(f"{part.name} gives {ours.shape} where its source gives {source.shape}.")
                scale = float(np.abs(source).max())
                difference = max(difference, _difference(ours, source) / max(scale, 1e-6))
                largest = max(largest, scale)
    except VerificationFailed:
        raise
    except Exception as error:  # onnxruntime has a class of its own for each status, with no common base
        raise VerificationFailed(
            f"onnxruntime cannot run the exported {part.name}, so nothing was installed: {error}"
        ) from error
    if not difference <= LARGEST_DIFFERENCE:
        raise VerificationFailed(
            f"The {part.name} does not answer as its source does, so nothing was installed. Largest difference "
            f"{difference:.3g} of the largest number (at most {LARGEST_DIFFERENCE:g}), over {len(RUNS)} batches."
        )
    return PartFigures(difference, largest, len(RUNS))


def _scaled(part: Part, sizes: Mapping[str, int]) -> dict[str, int]:
    unit = LATENT_UNIT if part.unit == 1 else 1
    return {name: size * unit if name in ("height", "width") else size for name, size in sizes.items()}


def _difference(ours: Any, theirs: Any) -> float:
    """The largest difference; infinite where one is not a number and the other is."""
    with np.errstate(invalid="ignore"):
        differences = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
    return float(differences.max()) if np.isfinite(differences).all() else float("inf")


def verify_pictures(pipeline: Pipeline, engines: Engines, guidance: float) -> PictureFigures:
    """Draw with the engines and with diffusers. Raises VerificationFailed with the figures."""
    multiple = pipeline.size_multiple
    # Where the pipeline does so itself, the other row is all noughts: that is compared too.
    zeros = engines.description.get("force_zeros_for_empty_prompt", False)
    wanted = Wanted(
        PROMPT,
        None if zeros or pipeline.guidance != "classifier-free" else NEGATIVE,
        guidance,
        STEPS,
        width=3 * multiple,
        height=2 * multiple,
        images=IMAGES,
        seed=SEED,
    )
    theirs = draw_by_diffusers(pipeline, wanted)
    gc.collect()
    try:
        ours = draw(engines, wanted)
    except Exception as error:  # see above
        raise VerificationFailed(f"The engines cannot draw together, so nothing was installed: {error}") from error
    scale = max(float(np.abs(theirs.latents).max()), 1e-6)
    figures = PictureFigures(
        IMAGES,
        STEPS,
        wanted.width,
        wanted.height,
        _difference(ours.latents, theirs.latents) / scale,
        _difference(ours.pictures, theirs.pictures),
        float(np.abs(ours.pictures - theirs.pictures).mean()),
    )
    if not (figures.latent_difference <= LARGEST_LATENT and figures.pixel_difference <= LARGEST_PIXEL):
        raise VerificationFailed(
            "The engines together do not draw as diffusers does, so nothing was installed. Largest difference of the "
            f"latents {figures.latent_difference:.3g} of their largest number (at most {LARGEST_LATENT:g}), of a pixel "
            f"{figures.pixel_difference:.3g} (at most {LARGEST_PIXEL:g}), over {IMAGES} pictures of {STEPS} steps."
        )
    return figures


def draw_by_diffusers(pipeline: Pipeline, wanted: Wanted) -> Drawn:
    """Draw with diffusers' own pipeline in fp32 on the CPU."""
    import diffusers
    import torch

    from builders.diffusion.networks import load_component

    quiet()
    networks = {name: load_component(pipeline, name) for name in (*pipeline.text_encoders, pipeline.denoiser, "vae")}
    listed = [name for name, entry in pipeline.index.items() if isinstance(entry, list)]
    without = {name: None for name in listed if name in OTHERS or class_of(pipeline.index, name) is None}
    kind = getattr(diffusers, pipeline.class_name)
    built = kind.from_pretrained(pipeline.folder, **FROM_FILES, **networks, **without)
    built.set_progress_bar_config(disable=True)
    arguments: dict[str, Any] = {"num_images_per_prompt": wanted.images, "num_inference_steps": wanted.steps}
    if wanted.negative_prompt is not None:
        arguments["negative_prompt"] = wanted.negative_prompt
    if pipeline.family in ("flux", "stable-diffusion-3"):
        arguments["max_sequence_length"] = t5_tokens(pipeline)
    with torch.inference_mode():
        latents = built(
            wanted.prompt,
            width=wanted.width,
            height=wanted.height,
            guidance_scale=wanted.guidance,
            generator=torch.Generator("cpu").manual_seed(wanted.seed),
            output_type="latent",
            **arguments,
        ).images
        whole = latents
        if pipeline.family == "flux":
            whole = built._unpack_latents(latents, wanted.height, wanted.width, pipeline.factor)
        pictures = built.vae.decode(_unscaled(built.vae.config, whole), return_dict=False)[0]
        return Drawn(latents.numpy(), (pictures / 2 + 0.5).clamp(0, 1).numpy())


def _unscaled(config: Any, latents: Any) -> Any:
    import torch

    mean, deviation = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is not None and deviation is not None:
        shaped = [torch.tensor(value).view(1, -1, 1, 1) for value in (mean, deviation)]
        return latents * shaped[1] / config.scaling_factor + shaped[0]
    return latents / config.scaling_factor + (getattr(config, "shift_factor", None) or 0.0)
