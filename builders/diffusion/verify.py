"""Compare the engines of a pipeline with their source networks, one by one and all together."""

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from builders.checkpoint import FROM_PRETRAINED_OPTIONS
from builders.diffusion.library_logging import silence_libraries
from builders.diffusion.part_comparison import PartMetrics, compare_part, largest_difference
from builders.diffusion.parts import PipelinePart
from builders.diffusion.pipeline import Pipeline, component_class, num_t5_tokens
from builders.diffusion.reference_pipeline import Engines, GeneratedImages, ImageRequest, generate_images
from builders.errors import MissingDependency, VerificationFailed
from builders.recipe import Precision

MAX_LATENT_DIFFERENCE: dict[Precision, float] = {"fp32": 1e-2, "fp16": 5e-2}
"""Largest such difference of the latents after the last step; differences grow from step to step."""

MAX_PIXEL_DIFFERENCE: dict[Precision, float] = {"fp32": 0.05, "fp16": 0.2}
"""Largest allowed difference of one colour channel of one pixel, on a scale of 0 to 1."""

UNUSED_COMPONENTS = ("safety_checker", "feature_extractor", "image_encoder")
"""Components of diffusers' pipelines that image generation here does not need."""

PROMPT, NEGATIVE = "a red cat, 2 hats", "blurred"
IMAGES, STEPS, SEED = 2, 3, 3


@dataclass(frozen=True, slots=True)
class ImageMetrics:
    """Distance of the images of all engines together from those of diffusers, for the same seed and scheduler."""

    pictures: int
    steps: int
    width: int
    height: int
    latent_difference: float
    """Largest difference of one number of the final latents, relative to their largest number."""
    pixel_difference: float
    """Largest difference of one colour channel of one pixel, on a scale of 0 to 1."""
    pixel_difference_mean: float


def verify_part(pipeline: Pipeline, part: PipelinePart, model: Path, precision: Precision = "fp32") -> PartMetrics:
    """Compare one engine with its source network, see `compare_part`. Raises VerificationFailed, MissingDependency."""
    try:
        from builders.diffusion.networks import load_part
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name) from error
    return compare_part(part, lambda half: load_part(pipeline, part, half=half), model, precision)


def verify_images(pipeline: Pipeline, engines: Engines, guidance: float, precision: Precision = "fp32") -> ImageMetrics:
    """Generate the same images with the engines and with diffusers. Raises VerificationFailed with the figures."""
    multiple = pipeline.size_multiple
    # Without a negative prompt such a pipeline uses zeros for it; this compares that case too.
    zeros = engines.description.get("force_zeros_for_empty_prompt", False)
    request = ImageRequest(
        PROMPT,
        None if zeros or pipeline.guidance != "classifier-free" else NEGATIVE,
        guidance,
        STEPS,
        width=3 * multiple,
        height=2 * multiple,
        num_images=IMAGES,
        seed=SEED,
    )
    theirs = generate_with_diffusers(pipeline, request)
    gc.collect()
    try:
        ours = generate_images(engines, request)
    except Exception as error:  # onnxruntime's errors have no common base
        raise VerificationFailed(
            f"The engines cannot generate an image together, so nothing was installed: {error}"
        ) from error
    scale = max(float(np.abs(theirs.latents).max()), 1e-6)
    figures = ImageMetrics(
        IMAGES,
        STEPS,
        request.width,
        request.height,
        largest_difference(ours.latents, theirs.latents) / scale,
        largest_difference(ours.images, theirs.images),
        float(np.abs(ours.images - theirs.images).mean()),
    )
    latent_limit, pixel_limit = MAX_LATENT_DIFFERENCE[precision], MAX_PIXEL_DIFFERENCE[precision]
    if not (figures.latent_difference <= latent_limit and figures.pixel_difference <= pixel_limit):
        raise VerificationFailed(
            "The images of the engines differ from those of diffusers, so nothing was installed. Largest difference of "
            f"the latents {figures.latent_difference:.3g} of their largest number (at most {latent_limit:g}), "
            f"of a pixel {figures.pixel_difference:.3g} (at most {pixel_limit:g}), over {IMAGES} images of "
            f"{STEPS} steps."
        )
    return figures


def generate_with_diffusers(pipeline: Pipeline, request: ImageRequest) -> GeneratedImages:
    """Generate images with diffusers' own pipeline, in fp32 on the CPU."""
    import diffusers
    import torch

    from builders.diffusion.networks import load_component

    silence_libraries()
    networks = {name: load_component(pipeline, name) for name in (*pipeline.text_encoders, pipeline.denoiser, "vae")}
    listed = [name for name, entry in pipeline.index.items() if isinstance(entry, list)]
    without = {
        name: None for name in listed if name in UNUSED_COMPONENTS or component_class(pipeline.index, name) is None
    }
    kind = getattr(diffusers, pipeline.class_name)
    built = kind.from_pretrained(pipeline.folder, **FROM_PRETRAINED_OPTIONS, **networks, **without)
    built.set_progress_bar_config(disable=True)
    arguments: dict[str, Any] = {"num_images_per_prompt": request.num_images, "num_inference_steps": request.steps}
    if request.negative_prompt is not None:
        arguments["negative_prompt"] = request.negative_prompt
    if pipeline.family in ("flux", "stable-diffusion-3"):
        arguments["max_sequence_length"] = num_t5_tokens(pipeline)
    with torch.inference_mode():
        latents = built(
            request.prompt,
            width=request.width,
            height=request.height,
            guidance_scale=request.guidance,
            generator=torch.Generator("cpu").manual_seed(request.seed),
            output_type="latent",
            **arguments,
        ).images
        unpacked = latents
        if pipeline.family == "flux":
            unpacked = built._unpack_latents(latents, request.height, request.width, pipeline.vae_scale_factor)
        images = built.vae.decode(_unscaled(built.vae.config, unpacked), return_dict=False)[0]
        return GeneratedImages(latents.numpy(), (images / 2 + 0.5).clamp(0, 1).numpy())


def _unscaled(config: Any, latents: Any) -> Any:
    import torch

    mean, deviation = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is not None and deviation is not None:
        shaped = [torch.tensor(value).view(1, -1, 1, 1) for value in (mean, deviation)]
        return latents * shaped[1] / config.scaling_factor + shaped[0]
    return latents / config.scaling_factor + (getattr(config, "shift_factor", None) or 0.0)
