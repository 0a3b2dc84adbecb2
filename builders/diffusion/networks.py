"""Each part of a pipeline as a PyTorch network. Inputs and outputs are the tensors of `builders.diffusion.parts`.

In fp16, inputs and outputs stay float32 and are converted inside. Timesteps, guidance scales, sizes and positions enter
the network in float32, as they do in diffusers' own pipelines: fp16 has no integers above 2,048.
"""

import math
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from builders.checkpoint import FROM_PRETRAINED_OPTIONS
from builders.diffusion.flux_layers import ExactTimes, RotaryTable
from builders.diffusion.parts import PipelinePart
from builders.diffusion.pipeline import Pipeline, PipelineFolder, component_class


def load_part(pipeline: Pipeline, part: PipelinePart, *, half: bool = False) -> torch.nn.Module:
    """Load one part in fp32, or `half` in fp16 where the libraries themselves compute in it (`component_type`).

    Raises what the libraries raise if the weights do not match the config.
    """
    model = load_component(pipeline, part.component, component_type(pipeline, part.component, half=half))
    if part.kind == "clip":
        # SDXL and SD3 use the hidden states before the last layer, without a final norm.
        layer = -2 if pipeline.family in ("stable-diffusion-xl", "stable-diffusion-3") else -1
        return CLIP(model, layer, pooled=len(part.outputs) > 1).eval()
    kinds: dict[str, Any] = {
        "t5": T5,
        "unet": UNet,
        "sd3": SD3,
        "flux": Flux,
        "vae-encoder": VaeEncoder,
        "vae-decoder": VaeDecoder,
    }
    network: torch.nn.Module = kinds[part.kind](model).eval()
    return network


def component_type(pipeline: Pipeline, component: str, *, half: bool) -> torch.dtype:
    """Return the number format of a component's weights.

    The VAE of Stable Diffusion XL overflows in fp16. diffusers' pipeline computes it in fp32, unless its configuration
    says that it was trained for fp16.
    """
    if component == "vae" and pipeline.family == "stable-diffusion-xl":
        half = half and not pipeline.config("vae").get("force_upcast", True)
    return torch.float16 if half else torch.float32


def load_component(pipeline: PipelineFolder, component: str, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    """Load a component of a pipeline, from safetensors only. `options` are those of the class.

    In fp16, transformers leaves the matrices of T5 that overflow in it in fp32.
    """
    import diffusers
    import transformers

    library = {"diffusers": diffusers, "transformers": transformers}[pipeline.index[component][0]]
    kind = getattr(library, str(component_class(pipeline.index, component)))
    where = pipeline.folder / component
    more: dict[str, Any] = {"dtype": dtype, **options}
    if (variant := weight_variant(where)) is not None:
        more["variant"] = variant
    model = kind.from_pretrained(where, **FROM_PRETRAINED_OPTIONS, **more)
    return (model.float() if dtype == torch.float32 else model).eval()


def weight_variant(folder: Path) -> str | None:
    """Return the variant of a folder's weights, `fp16` of `model.fp16.safetensors`; None if there are plain ones."""
    names = [path.name.split(".") for path in folder.glob("*.safetensors")]
    plain = [name for name in names if len(name) == 2]
    variants = sorted({name[1].split("-")[0] for name in names if len(name) > 2})
    return None if plain or not variants else variants[0]


def convert(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert a tensor, without a node in the graph where there is nothing to convert."""
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def to_float(tensor: Tensor) -> Tensor:
    """Convert a tensor to float32."""
    return convert(tensor, torch.float32)


class CLIP(torch.nn.Module):  # type: ignore[misc]  # mypy does not read torch
    """`input_ids int64[batch, tokens] -> hidden_states[batch, tokens, width], pooled[batch, width]`."""

    def __init__(self, model: Any, layer: int, *, pooled: bool) -> None:
        super().__init__()
        self.model, self._layer, self._pooled = model, layer, pooled

    def forward(self, input_ids: Tensor) -> Any:
        """Encode token ids."""
        output = self.model(input_ids, output_hidden_states=self._layer != -1)
        states = output.last_hidden_state if self._layer == -1 else output.hidden_states[self._layer]
        if not self._pooled:
            return to_float(states)
        projected = getattr(output, "text_embeds", None)
        return to_float(states), to_float(output.pooler_output if projected is None else projected)


class T5(torch.nn.Module):  # type: ignore[misc]
    """`input_ids int64[batch, tokens] -> hidden_states[batch, tokens, width]`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        """Encode token ids."""
        return to_float(self.model(input_ids)[0])


class UNet(torch.nn.Module):  # type: ignore[misc]
    """`sample[batch, channels, h, w], timestep[batch], encoder_hidden_states[batch, tokens, width] -> noise_pred`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        text_embeds: Tensor | None = None,
        time_ids: Tensor | None = None,
        guidance: Tensor | None = None,
    ) -> Tensor:
        """Predict the noise. SDXL has `text_embeds` and `time_ids`; guidance-distilled models, `guidance[batch]`."""
        dtype = self.model.dtype
        # These stay float32 in fp16, too: the network joins them with embedded sizes in float32 and converts the whole.
        added = None if text_embeds is None else {"text_embeds": text_embeds, "time_ids": time_ids}
        condition = None if guidance is None else convert(self._embed(guidance - 1), dtype)
        noise = self.model(
            convert(sample, dtype),
            timestep,
            convert(encoder_hidden_states, dtype),
            timestep_cond=condition,
            added_cond_kwargs=added,
            return_dict=False,
        )[0]
        return to_float(noise)

    def _embed(self, scale: Tensor) -> Tensor:
        """Embed the guidance scale as `get_guidance_scale_embedding` of diffusers' pipelines does: [batch, width]."""
        width = int(self.model.config.time_cond_proj_dim)
        half = width // 2
        frequencies = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000.0) / (half - 1)))
        angles = (scale * 1000.0)[:, None] * frequencies[None, :]
        embedded = torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)
        return torch.nn.functional.pad(embedded, (0, 1)) if width % 2 else embedded


class SD3(torch.nn.Module):  # type: ignore[misc]
    """`sample, timestep, encoder_hidden_states, pooled_projections[batch, width] -> noise_pred`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        model.pos_embed.cropped_pos_embed = partial(crop_positions, model.pos_embed)

    def forward(
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, pooled_projections: Tensor
    ) -> Tensor:
        """Predict the noise."""
        dtype = self.model.dtype
        noise = self.model(
            hidden_states=convert(sample, dtype),
            timestep=timestep,
            encoder_hidden_states=convert(encoder_hidden_states, dtype),
            pooled_projections=convert(pooled_projections, dtype),
            return_dict=False,
        )[0]
        return to_float(noise)


def crop_positions(embedding: Any, height: int, width: int) -> Tensor:
    """Crop the centre of SD3's position table to [1, patches, width], for a latent of this height and width.

    The start of the crop is computed with tensors. PyTorch's exporter would rewrite `(largest - height) // 2` into the
    division of a negative number, which ONNX rounds the other way: odd numbers of patches would get a longer table.
    """
    largest, patch = embedding.pos_embed_max_size, embedding.patch_size
    table = embedding.pos_embed.reshape(largest, largest, -1)
    for axis, count in enumerate((height // patch, width // patch)):
        room = torch.full((1,), largest - count, dtype=torch.int64)
        table = table.index_select(axis, torch.arange(count) + torch.div(room, 2, rounding_mode="floor"))
    return table.reshape(1, -1, table.shape[-1])


class Flux(torch.nn.Module):  # type: ignore[misc]
    """`hidden_states[batch, patches, 4 * channels], timestep[batch] in 0 to 1, … -> noise_pred` of the same shape."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        model.pos_embed = RotaryTable(model.pos_embed)
        self._exact_times = ExactTimes(model.time_text_embed)
        model.time_text_embed = self._exact_times

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        pooled_projections: Tensor,
        encoder_hidden_states: Tensor,
        img_ids: Tensor,
        txt_ids: Tensor,
        guidance: Tensor | None = None,
    ) -> Tensor:
        """Predict the noise. Positions are taken from the first row: all rows of a batch have the same size."""
        dtype = self.model.dtype
        self._exact_times.held.times = [times * 1000 for times in (timestep, guidance) if times is not None]
        noise = self.model(
            hidden_states=convert(hidden_states, dtype),
            timestep=timestep,
            guidance=guidance,
            pooled_projections=convert(pooled_projections, dtype),
            encoder_hidden_states=convert(encoder_hidden_states, dtype),
            img_ids=img_ids[0],
            txt_ids=txt_ids[0],
            return_dict=False,
        )[0]
        return to_float(noise)


class VaeEncoder(torch.nn.Module):  # type: ignore[misc]
    """`image[batch, 3, H, W] in -1..1 -> moments[batch, 2 * channels, h, w]`: means, then log variances."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """Encode images."""
        distribution = self.model.encode(convert(image, self.model.dtype)).latent_dist
        return to_float(torch.cat([distribution.mean, distribution.logvar], dim=1))


class VaeDecoder(torch.nn.Module):  # type: ignore[misc]
    """`latent[batch, channels, h, w] -> image[batch, 3, H, W] in -1..1`. The latent is already unscaled."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, latent: Tensor) -> Tensor:
        """Decode latents."""
        return to_float(self.model.decode(convert(latent, self.model.dtype), return_dict=False)[0])
