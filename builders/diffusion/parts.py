"""The parts of a pipeline that become Triton models of their own, and the tensors of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from builders.diffusion.pipeline import Pipeline, component_class

PartKind = Literal["clip", "t5", "unet", "sd3", "flux", "vae-encoder", "vae-decoder"]
Dimension = int | str
"""A fixed size, or the name of one that varies: `tokens`, `patches`, `height` and `width`."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output, batch first: `shape` leaves the batch out."""

    name: str
    shape: tuple[Dimension, ...]
    type: Literal["INT64", "FP32"] = "FP32"


@dataclass(frozen=True, slots=True)
class PipelinePart:
    """A network that becomes an engine."""

    name: str
    """What the model's name ends with, and the key of its figures."""
    kind: PartKind
    component: str
    """Its folder in the pipeline."""
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    size_unit: int = 1
    """What `height` and `width` are multiples of."""
    vocabulary: int = 0
    """Of a text encoder: ids are below this."""


def pipeline_parts(pipeline: Pipeline) -> tuple[PipelinePart, ...]:
    """List the parts of a pipeline, text encoders first."""
    encoders = [_text_encoder(pipeline, name) for name in pipeline.text_encoders]
    latent, picture = (pipeline.latent_channels, "height", "width"), (3, "height", "width")
    moments = (2 * pipeline.latent_channels, "height", "width")
    return (
        *encoders,
        _denoiser(pipeline),
        PipelinePart(
            "vae-encoder",
            "vae-encoder",
            "vae",
            (TensorSpec("image", picture),),
            (TensorSpec("moments", moments),),
            pipeline.vae_scale_factor,
        ),
        PipelinePart(
            "vae-decoder", "vae-decoder", "vae", (TensorSpec("latent", latent),), (TensorSpec("image", picture),)
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


def example_inputs(
    part: PipelinePart, batch: int, sizes: Mapping[str, int], seed: int = 0
) -> dict[str, npt.NDArray[Any]]:
    """Make inputs of `batch` rows for a part. `sizes` are the varying sizes, `height` and `width` in units of the part.

    Every row has a timestep of its own. Noise is normal, pictures lie in -1 to 1.
    """
    random = np.random.default_rng(seed)
    made: dict[str, npt.NDArray[Any]] = {}
    for port in part.inputs:
        shape = (batch, *(size if isinstance(size, int) else sizes[size] for size in port.shape))
        if {"height", "width"} & set(port.shape):
            shape = (*shape[:-2], shape[-2] * part.size_unit, shape[-1] * part.size_unit)
        if port.name == "input_ids":
            made[port.name] = random.integers(0, part.vocabulary, shape)
        elif port.name == "timestep":
            made[port.name] = random.uniform(0, 1 if part.kind == "flux" else 999, shape)
        elif port.name == "guidance":
            made[port.name] = random.uniform(1, 8, shape)
        elif port.name == "time_ids":
            made[port.name] = random.integers(0, 1024, shape)
        elif port.name in ("img_ids", "txt_ids"):  # one grid for all rows
            made[port.name] = np.broadcast_to(random.integers(0, 64, shape[1:]), shape)
        elif port.name == "image":
            made[port.name] = random.uniform(-1, 1, shape)
        else:
            made[port.name] = random.standard_normal(shape)
        made[port.name] = np.ascontiguousarray(made[port.name], np.int64 if port.type == "INT64" else np.float32)
    return made
