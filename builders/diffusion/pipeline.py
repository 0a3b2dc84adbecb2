"""Read a pipeline folder in diffusers' layout, without torch or diffusers."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from builders.checkpoint import read_json
from builders.errors import SourceUnavailable, UnsupportedModel

PipelineFamily = Literal["stable-diffusion", "stable-diffusion-xl", "stable-diffusion-3", "flux"]

PIPELINE_FAMILIES: dict[str, PipelineFamily] = {
    "StableDiffusionPipeline": "stable-diffusion",
    "LatentConsistencyModelPipeline": "stable-diffusion",
    "StableDiffusionXLPipeline": "stable-diffusion-xl",
    "StableDiffusion3Pipeline": "stable-diffusion-3",
    "FluxPipeline": "flux",
}
"""Supported pipelines of diffusers, by the name of their class."""

DENOISERS: dict[PipelineFamily, tuple[str, str]] = {
    "stable-diffusion": ("unet", "UNet2DConditionModel"),
    "stable-diffusion-xl": ("unet", "UNet2DConditionModel"),
    "stable-diffusion-3": ("transformer", "SD3Transformer2DModel"),
    "flux": ("transformer", "FluxTransformer2DModel"),
}
"""Folder and class of the denoiser."""

LIBRARIES = ("diffusers", "transformers")
"""Libraries that component classes may come from."""

TEXT_ENCODERS = ("CLIPTextModel", "CLIPTextModelWithProjection", "T5EncoderModel")

TEXT_ENCODER_FOLDERS = ("text_encoder", "text_encoder_2", "text_encoder_3")

MAX_T5_TOKENS = 256
"""Prompt tokens of a T5 encoder: the default of diffusers' pipelines."""

MAX_T5_TOKENS_GUIDED = 512
"""Prompt tokens of the T5 encoder of Flux checkpoints with a guidance input."""


@dataclass(frozen=True, slots=True)
class PipelineFolder:
    """A folder in diffusers' layout whose classes are supported."""

    folder: Path
    family: str
    class_name: str
    index: dict[str, Any]
    """`model_index.json`: the library and class of each component."""

    def config(self, component: str) -> dict[str, Any]:
        """Read a component's `config.json`. Raises SourceUnavailable."""
        return read_json(self.folder / component / "config.json", needed=True)


@dataclass(frozen=True, slots=True)
class Pipeline(PipelineFolder):
    """A folder with a pipeline that makes images."""

    family: PipelineFamily

    @property
    def denoiser(self) -> str:
        """Folder of the denoiser."""
        return DENOISERS[self.family][0]

    @property
    def text_encoders(self) -> tuple[str, ...]:
        """Folders of the text encoders, in the order of the pipeline."""
        return tuple(name for name in TEXT_ENCODER_FOLDERS if component_class(self.index, name) is not None)

    @property
    def vae_scale_factor(self) -> int:
        """Pixels of an image for one latent cell, along each side."""
        return int(2 ** (len(self.config("vae")["block_out_channels"]) - 1))

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return int(self.config("vae").get("latent_channels", 4))

    @property
    def patch_size(self) -> int:
        """Side of a patch of the denoiser, in latent cells; for a UNet, the factor of its downsampling."""
        config = self.config(self.denoiser)
        if self.family in ("stable-diffusion", "stable-diffusion-xl"):
            return int(2 ** (len(config["block_out_channels"]) - 1))
        return int(config["patch_size"]) if self.family == "stable-diffusion-3" else 2

    @property
    def size_multiple(self) -> int:
        """Width and height of an image are multiples of this many pixels, as in diffusers' pipelines."""
        return math.lcm(8, self.vae_scale_factor * self.patch_size)

    @property
    def native_size(self) -> int:
        """Side of the images that the model was trained on, in pixels."""
        sample = 128 if self.family == "flux" else self.config(self.denoiser).get("sample_size", 64)
        side = max(sample) if isinstance(sample, list) else int(sample)
        return max(side * self.vae_scale_factor // self.size_multiple, 1) * self.size_multiple

    @property
    def guidance(self) -> Literal["classifier-free", "embedded", "none"]:
        """Kind of guidance: a second row without the prompt, an input of the denoiser, or none."""
        config = self.config(self.denoiser)
        if self.family == "flux":
            return "embedded" if config.get("guidance_embeds") else "none"
        return "embedded" if config.get("time_cond_proj_dim") else "classifier-free"

    def num_tokens(self, text_encoder: str) -> int:
        """Return the fixed number of tokens of a text encoder: prompts are padded or truncated to it."""
        configured = read_json(self.folder / tokenizer_folder(text_encoder) / "tokenizer_config.json").get(
            "model_max_length"
        )
        limit = int(configured) if isinstance(configured, int | float) and configured > 0 else 10**9
        if component_class(self.index, text_encoder) == "T5EncoderModel":
            guided = self.family == "flux" and self.guidance == "embedded"
            return min(limit, MAX_T5_TOKENS_GUIDED if guided else MAX_T5_TOKENS)
        return min(limit, int(self.config(text_encoder)["max_position_embeddings"]))


def component_class(index: Mapping[str, Any], component: str) -> str | None:
    """Return the class name of a component; None if the pipeline does not have it."""
    entry = index.get(component)
    return entry[1] if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str) else None


def num_t5_tokens(pipeline: Pipeline) -> int:
    """Return the tokens of the pipeline's T5 encoder, or of the zeros that replace it in a pipeline without one."""
    encoders = [name for name in pipeline.text_encoders if component_class(pipeline.index, name) == "T5EncoderModel"]
    return pipeline.num_tokens(encoders[0]) if encoders else MAX_T5_TOKENS


def tokenizer_folder(text_encoder: str) -> str:
    """Return the folder of a text encoder's tokenizer."""
    return text_encoder.replace("text_encoder", "tokenizer")


SCHEDULERS = (
    "DDIMScheduler",
    "DPMSolverMultistepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "LCMScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)
"""Schedulers that the backend implements. A model with another one could be installed but would not load."""


def check_index(index: dict[str, Any]) -> PipelineFamily:
    """Return the family of a pipeline from its `model_index.json`. Raises UnsupportedModel, which names the class."""
    name = str(index.get("_class_name"))
    if name not in PIPELINE_FAMILIES:
        raise UnsupportedModel(f"The pipeline {name} cannot be built. Those that can: {', '.join(PIPELINE_FAMILIES)}.")
    family = PIPELINE_FAMILIES[name]
    folder, denoiser = DENOISERS[family]
    supported: dict[str, tuple[str, ...]] = {
        folder: (denoiser,),
        "vae": ("AutoencoderKL",),
        "text_encoder": TEXT_ENCODERS,
        "scheduler": SCHEDULERS,
    }
    for component, classes in supported.items():
        if component_class(index, component) not in classes:
            raise UnsupportedModel(
                f"The {component} of this pipeline is {component_class(index, component)}; what can be built: "
                f"{', '.join(classes)}."
            )
    numbered = (f"{kind}_{number}" for kind in ("text_encoder", "tokenizer") for number in (2, 3))
    check_libraries(index, (*supported, "tokenizer", *numbered))
    for component in ("text_encoder_2", "text_encoder_3"):
        if component_class(index, component) not in (None, *TEXT_ENCODERS):
            raise UnsupportedModel(f"The {component} of this pipeline is {component_class(index, component)}.")
    return family


def check_libraries(index: Mapping[str, Any], components: Iterable[str]) -> None:
    """Raise UnsupportedModel if a component's class is not of diffusers or transformers."""
    for component in components:
        if component_class(index, component) is not None and index[component][0] not in LIBRARIES:
            raise UnsupportedModel(
                f"The {component} of this pipeline is of {index[component][0]!r}, which is not diffusers or "
                "transformers: code that comes with a checkpoint is not run."
            )


def read(folder: Path) -> Pipeline:
    """Read the pipeline in a folder. Raises SourceUnavailable, UnsupportedModel."""
    index = read_json(folder / "model_index.json", needed=True)
    pipeline = Pipeline(folder, check_index(index), index["_class_name"], index)
    if pipeline.family in ("stable-diffusion", "stable-diffusion-xl"):
        _check_unet(pipeline)
    for encoder in pipeline.text_encoders:
        if not (folder / tokenizer_folder(encoder)).is_dir():
            raise SourceUnavailable(f"{folder} has no {tokenizer_folder(encoder)}, which {encoder} needs.")
    return pipeline


def _check_unet(pipeline: Pipeline) -> None:
    config = pipeline.config("unet")
    if config.get("in_channels", 4) != pipeline.latent_channels:
        raise UnsupportedModel(
            f"The UNet takes {config.get('in_channels')} channels where the VAE has {pipeline.latent_channels}: it was "
            "made for one task, such as inpainting. Build its base model, which supports that task too."
        )
    added = config.get("addition_embed_type")
    known = (None, "text") if pipeline.family == "stable-diffusion" else ("text_time",)
    if added not in known:
        raise UnsupportedModel(f"The UNet asks for additional inputs of the kind {added!r}, which is not built.")
    for key in ("class_embed_type", "num_class_embeds", "encoder_hid_dim_type"):
        if config.get(key) is not None:
            raise UnsupportedModel(f"The UNet has {key} = {config[key]!r}, which is not built.")
