"""Compare the engines of a pipeline with their source networks, one by one and all together."""

import gc
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from builders.checkpoint import FROM_PRETRAINED_OPTIONS
from builders.diffusion.library_logging import silence_libraries
from builders.diffusion.parts import PipelinePart, example_inputs
from builders.diffusion.pipeline import Pipeline, component_class, num_t5_tokens
from builders.diffusion.reference_pipeline import Engines, GeneratedImages, ImageRequest, generate_images, open_session
from builders.errors import MissingDependency, VerificationFailed
from builders.recipe import Precision

MAX_DIFFERENCE: dict[Precision, float] = {"fp32": 1e-3, "fp16": 5e-2}
"""Largest allowed difference of one output number of a part, relative to its source's largest number."""

MAX_LATENT_DIFFERENCE: dict[Precision, float] = {"fp32": 1e-2, "fp16": 5e-2}
"""Largest such difference of the latents after the last step; differences grow from step to step."""

MAX_PIXEL_DIFFERENCE: dict[Precision, float] = {"fp32": 0.05, "fp16": 0.2}
"""Largest allowed difference of one colour channel of one pixel, on a scale of 0 to 1."""

TEST_SHAPES = (
    (1, {"height": 2, "width": 2, "tokens": 8, "patches": 4}),
    (3, {"height": 2, "width": 3, "tokens": 8, "patches": 6}),
    (2, {"height": 5, "width": 1, "tokens": 21, "patches": 35}),
)
"""Batches and sizes of the comparison, all different from the exported ones; heights and widths in multiples of
`PipelinePart.size_unit`."""

MIN_LATENT_CELLS = 4
"""Replaces a `size_unit` of 1 for those sizes: a VAE decoder's input of a single cell would test little."""

UNUSED_COMPONENTS = ("safety_checker", "feature_extractor", "image_encoder")
"""Components of diffusers' pipelines that image generation here does not need."""

PROMPT, NEGATIVE = "a red cat, 2 hats", "blurred"
IMAGES, STEPS, SEED = 2, 3, 3


@dataclass(frozen=True, slots=True)
class PartMetrics:
    """Distance of an engine from its source network."""

    difference: float
    """Largest difference of one number, relative to the largest number of the source's output."""
    largest: float
    """The largest number of the source's outputs."""
    runs: int
    fp16_difference: float | None = None
    """The same difference of the source network in fp16 arithmetic; None if the engine is not in fp16."""


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
    """Compare one engine with its source network in fp32, on the CPU.

    onnxruntime's CPU provider computes most of an fp16 graph in fp32, with the weights in fp16. So PyTorch runs the
    network in fp16, too. Raises VerificationFailed with the figures, MissingDependency.
    """
    try:
        from builders.diffusion.networks import load_part
    except ModuleNotFoundError as error:
        raise MissingDependency(error.name) from error
    silence_libraries()
    network, difference, largest = load_part(pipeline, part), 0.0, 0.0
    half_difference = _half_difference(pipeline, part, network) if precision == "fp16" else None
    try:
        engine = open_session(model)
        names = [port.name for port in part.outputs]
        for seed, (batch, sizes) in enumerate(TEST_SHAPES):
            inputs = example_inputs(part, batch, _scaled(part, sizes), seed=seed + 1)
            theirs = _run_network(network, inputs)
            for source, ours in zip(theirs, engine.run(names, inputs), strict=True):
                if ours.shape != source.shape:
                    raise VerificationFailed(f"{part.name} gives {ours.shape} where its source gives {source.shape}.")
                difference = max(difference, _relative_difference(ours, source))
                largest = max(largest, float(np.abs(source).max()))
    except VerificationFailed:
        raise
    except Exception as error:  # onnxruntime has a class of its own for each status, with no common base
        raise VerificationFailed(
            f"onnxruntime cannot run the exported {part.name}, so nothing was installed: {error}"
        ) from error
    worst = max(difference, half_difference or 0.0)
    if not worst <= MAX_DIFFERENCE[precision]:
        raise VerificationFailed(
            f"The {part.name} does not answer as its source does, so nothing was installed. Largest difference "
            f"{worst:.3g} of the largest number (at most {MAX_DIFFERENCE[precision]:g}), over {len(TEST_SHAPES)} "
            "batches."
        )
    return PartMetrics(difference, largest, len(TEST_SHAPES), half_difference)


def _half_difference(pipeline: Pipeline, part: PipelinePart, network: Any) -> float:
    """Return the largest difference between the source network in fp16 arithmetic and `network`, which is in fp32."""
    from builders.diffusion.networks import load_part

    half, differences = load_part(pipeline, part, half=True), [0.0]
    for seed, (batch, sizes) in enumerate(TEST_SHAPES):
        inputs = example_inputs(part, batch, _scaled(part, sizes), seed=seed + 1)
        try:
            ours = _run_network(half, inputs)
        except RuntimeError as error:  # such as an operator that PyTorch does not have in fp16 for CPUs
            raise VerificationFailed(
                f"PyTorch cannot run the {part.name} in fp16, so nothing was installed: {error}"
            ) from error
        pairs = zip(ours, _run_network(network, inputs), strict=True)
        differences += [_relative_difference(*pair) for pair in pairs]
    return max(differences)


def _run_network(network: Any, inputs: Mapping[str, Any]) -> list[Any]:
    """Run a network of PyTorch; return its outputs as numpy arrays."""
    import torch

    with torch.inference_mode():
        output = network(**{name: torch.from_numpy(value) for name, value in inputs.items()})
    return [tensor.numpy() for tensor in (output if isinstance(output, tuple) else (output,))]


def _scaled(part: PipelinePart, sizes: Mapping[str, int]) -> dict[str, int]:
    unit = MIN_LATENT_CELLS if part.size_unit == 1 else 1
    return {name: size * unit if name in ("height", "width") else size for name, size in sizes.items()}


def _relative_difference(ours: Any, source: Any) -> float:
    """Return the largest difference, relative to the largest number of `source`."""
    return _difference(ours, source) / max(float(np.abs(source).max()), 1e-6)


def _difference(ours: Any, theirs: Any) -> float:
    """Return the largest absolute difference; infinity if any difference is not finite."""
    with np.errstate(invalid="ignore"):
        differences = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
    return float(differences.max()) if np.isfinite(differences).all() else float("inf")


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
        _difference(ours.latents, theirs.latents) / scale,
        _difference(ours.images, theirs.images),
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
