"""The parts of a pipeline that become Triton models of their own, with their tensors."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from builders.diffusion.pipeline import Pipeline, component_class

PartKind = Literal[
    "clip",
    "t5",
    "unet",
    "sd3",
    "flux",
    "vae-encoder",
    "vae-decoder",
    "umt5",
    "clip-vision",
    "wan",
    "wan-decoder-first",
    "wan-decoder-next",
    "wan-encoder-first",
    "wan-encoder-next",
    "motion-unet",
    "frame-encoder",
    "frame-decoder",
]


@dataclass(frozen=True, slots=True)
class Multiple:
    """A size that is `factor` times that of a dynamic one."""

    name: str
    factor: int


Dimension = int | str | Multiple
"""A fixed size, or the name of a dynamic one: `tokens`, `patches`, `frames`, `height` or `width`."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output. The batch is its first dimension, which `shape` leaves out."""

    name: str
    shape: tuple[Dimension, ...]
    type: Literal["INT64", "FP32"] = "FP32"


@dataclass(frozen=True, slots=True)
class PipelinePart:
    """A network of the pipeline that becomes an engine and a Triton model."""

    name: str
    """Suffix of the model's name, and key of its verification figures."""
    kind: PartKind
    component: str
    """Folder of its weights in the pipeline."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    size_unit: int = 1
    """`height` and `width` are multiples of it."""
    vocabulary: int = 0
    """Number of token ids of a text encoder; 0 for other parts."""


def pipeline_parts(pipeline: Pipeline) -> tuple[PipelinePart, ...]:
    """Return the parts of a pipeline, text encoders first."""
    encoders = [_text_encoder(pipeline, name) for name in pipeline.text_encoders]
    latent, image = (pipeline.latent_channels, "height", "width"), (3, "height", "width")
    moments = (2 * pipeline.latent_channels, "height", "width")
    return (
        *encoders,
        _denoiser(pipeline),
        PipelinePart(
            "vae-encoder",
            "vae-encoder",
            "vae",
            (TensorSpec("image", image),),
            (TensorSpec("moments", moments),),
            pipeline.vae_scale_factor,
        ),
        PipelinePart(
            "vae-decoder", "vae-decoder", "vae", (TensorSpec("latent", latent),), (TensorSpec("image", image),)
        ),
    )


def _text_encoder(pipeline: Pipeline, component: str) -> PipelinePart:
    config, tokens = pipeline.config(component), pipeline.num_tokens(component)
    name, inputs = component.replace("_", "-"), (TensorSpec("input_ids", (tokens,), "INT64"),)
    kind = component_class(pipeline.index, component)
    if kind == "T5EncoderModel":
        states = (TensorSpec("hidden_states", (tokens, config["d_model"])),)
        return PipelinePart(name, "t5", component, inputs, states, vocabulary=config["vocab_size"])
    outputs: tuple[TensorSpec, ...] = (TensorSpec("hidden_states", (tokens, config["hidden_size"])),)
    if kind == "CLIPTextModelWithProjection":
        outputs = (*outputs, TensorSpec("pooled", (config["projection_dim"],)))
    elif pipeline.family == "flux":
        outputs = (*outputs, TensorSpec("pooled", (config["hidden_size"],)))
    return PipelinePart(name, "clip", component, inputs, outputs, vocabulary=config["vocab_size"])


def _denoiser(pipeline: Pipeline) -> PipelinePart:
    config, channels = pipeline.config(pipeline.denoiser), pipeline.latent_channels
    guidance = (TensorSpec("guidance", ()),) if pipeline.guidance == "embedded" else ()
    sample, timestep = TensorSpec("sample", (channels, "height", "width")), TensorSpec("timestep", ())
    if pipeline.family == "flux":
        packed, width = config["in_channels"], config["joint_attention_dim"]
        inputs = (
            TensorSpec("hidden_states", ("patches", packed)),
            timestep,
            *guidance,
            TensorSpec("pooled_projections", (config["pooled_projection_dim"],)),
            TensorSpec("encoder_hidden_states", ("tokens", width)),
            TensorSpec("img_ids", ("patches", 3)),
            TensorSpec("txt_ids", ("tokens", 3)),
        )
        return PipelinePart("denoiser", "flux", "transformer", inputs, (TensorSpec("noise_pred", ("patches", packed)),))
    noise = (TensorSpec("noise_pred", sample.shape),)
    if pipeline.family == "stable-diffusion-3":
        inputs = (
            sample,
            timestep,
            TensorSpec("encoder_hidden_states", ("tokens", config["joint_attention_dim"])),
            TensorSpec("pooled_projections", (config["pooled_projection_dim"],)),
        )
        return PipelinePart("denoiser", "sd3", "transformer", inputs, noise, pipeline.patch_size)
    width = config["cross_attention_dim"]
    states = TensorSpec("encoder_hidden_states", ("tokens", width[0] if isinstance(width, list) else width))
    added: tuple[TensorSpec, ...] = ()
    if config.get("addition_embed_type") == "text_time":
        pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        added = (TensorSpec("text_embeds", (pooled,)), TensorSpec("time_ids", (6,)))
    return PipelinePart(
        "denoiser", "unet", "unet", (sample, timestep, states, *added, *guidance), noise, pipeline.patch_size
    )


def concrete_size(size: Dimension, sizes: Mapping[str, int]) -> int:
    """Return a dimension's size, where `sizes` gives those of the dynamic ones."""
    if isinstance(size, Multiple):
        return size.factor * sizes[size.name]
    return sizes[size] if isinstance(size, str) else size


def network_arguments(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a part's network: `inputs`, where `cache_0`, `cache_1`, … are one tuple `caches`."""
    caches = tuple(value for name, value in inputs.items() if name.startswith("cache_"))
    others = {name: value for name, value in inputs.items() if not name.startswith("cache_")}
    return others | ({"caches": caches} if caches else {})


def example_inputs(
    part: PipelinePart, batch: int, sizes: Mapping[str, int], seed: int = 0
) -> dict[str, npt.NDArray[Any]]:
    """Return random inputs of `batch` rows for a part.

    `sizes` gives the dynamic sizes, with `height` and `width` in multiples of `part.size_unit`. Every row has a
    timestep of its own. Noise is standard normal, images are uniform in -1 to 1.
    """
    generator = np.random.default_rng(seed)
    inputs: dict[str, npt.NDArray[Any]] = {}
    for port in part.inputs:
        shape = (batch, *(concrete_size(size, sizes) for size in port.shape))
        if {"height", "width"} & set(port.shape):
            shape = (*shape[:-2], shape[-2] * part.size_unit, shape[-1] * part.size_unit)
        if port.name == "input_ids":
            inputs[port.name] = generator.integers(0, part.vocabulary, shape)
        elif port.name == "attention_mask":  # rows of different lengths
            lengths = generator.integers(1, shape[1] + 1, (batch, 1))
            inputs[port.name] = np.arange(shape[1])[None, :] < lengths
        elif port.name == "timestep":
            inputs[port.name] = generator.uniform(0, 1 if part.kind == "flux" else 999, shape)
        elif port.name == "guidance":
            inputs[port.name] = generator.uniform(1, 8, shape)
        elif port.name == "time_ids":
            inputs[port.name] = generator.integers(0, 1024, shape)
        elif port.name in ("img_ids", "txt_ids"):  # one grid for all rows
            inputs[port.name] = np.broadcast_to(generator.integers(0, 64, shape[1:]), shape)
        elif port.name in ("image", "video"):
            inputs[port.name] = generator.uniform(-1, 1, shape)
        else:
            inputs[port.name] = generator.standard_normal(shape)
        inputs[port.name] = np.ascontiguousarray(inputs[port.name], np.int64 if port.type == "INT64" else np.float32)
    return inputs
