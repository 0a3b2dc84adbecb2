"""Read an AnimateDiff pipeline: the text encoder, UNet and VAE of Stable Diffusion, and layers that join frames.

The UNet is saved whole, as `UNetMotionModel`, or as Stable Diffusion's with a `MotionAdapter` next to it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.checkpoint import read_json
from builders.diffusion.pipeline import SCHEDULERS, check_libraries, component_class, tokenizer_folder
from builders.errors import SourceUnavailable, UnsupportedModel
from builders.video.pipeline import MOTION_PIPELINES, ImageConditioning, VideoPipeline

MOTION_COMPONENTS = {
    "text_encoder": ("CLIPTextModel",),
    "unet": ("UNetMotionModel", "UNet2DConditionModel"),
    "vae": ("AutoencoderKL",),
    "scheduler": SCHEDULERS,
}
"""Supported classes of the components that every pipeline has."""

ADAPTER = "motion_adapter"
"""Folder of the layers that join frames, where the UNet is that of Stable Diffusion."""


@dataclass(frozen=True, slots=True)
class MotionPipeline(VideoPipeline):
    """A folder with an AnimateDiff pipeline. Each frame of a video has a latent frame of its own."""

    @property
    def vae_scale_factor(self) -> int:
        """Pixels of a frame for one latent cell, along each side."""
        return int(2 ** (len(self.config("vae")["block_out_channels"]) - 1))

    @property
    def temporal_factor(self) -> int:
        """Frames of the video for one latent frame: 1."""
        return 1

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return int(self.config("vae").get("latent_channels", 4))

    @property
    def patch_size(self) -> tuple[int, int, int]:
        """1 frame, and the factor of the UNet's downsampling along each side, in latent cells."""
        side = int(2 ** (len(self.config("unet")["block_out_channels"]) - 1))
        return 1, side, side

    @property
    def size_multiple(self) -> int:
        """Width and height of a video are multiples of this many pixels, with which no layer of the UNet crops."""
        return math.lcm(8, self.vae_scale_factor * self.patch_size[1])

    @property
    def expand_timesteps(self) -> bool:
        """False: all frames have one timestep."""
        return False

    @property
    def image_conditioning(self) -> ImageConditioning:
        """`none`: the UNet takes no picture."""
        return "none"

    @property
    def has_image_encoder(self) -> bool:
        """False: the UNet attends to the text alone."""
        return False

    @property
    def num_tokens(self) -> int:
        """The fixed number of text tokens: prompts are padded or truncated to it."""
        configured = read_json(self.folder / tokenizer_folder("text_encoder") / "tokenizer_config.json").get(
            "model_max_length"
        )
        limit = int(self.config("text_encoder")["max_position_embeddings"])
        return min(limit, int(configured)) if isinstance(configured, int | float) and configured > 0 else limit

    @property
    def max_latent_frames(self) -> int:
        """The most frames for which the motion layers have positions."""
        source = ADAPTER if has_adapter(self.index) else "unet"
        return int(self.config(source).get("motion_max_seq_length") or 32)

    @property
    def max_side(self) -> int | None:
        """None: the UNet has no positions in a frame."""
        return None


def has_adapter(index: Mapping[str, Any]) -> bool:
    """Return whether the motion layers are in a folder of their own."""
    return component_class(index, "unet") == "UNet2DConditionModel"


def motion_folders(index: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the folders that decide what is built. An adapter that the UNet already holds is not one of them."""
    return (*MOTION_COMPONENTS, "tokenizer", *((ADAPTER,) if has_adapter(index) else ()))


def check_motion_index(index: dict[str, Any]) -> str:
    """Return the family of an AnimateDiff pipeline from its `model_index.json`. Raises UnsupportedModel."""
    adapter = {ADAPTER: ("MotionAdapter",)} if has_adapter(index) else {}
    for component, classes in (MOTION_COMPONENTS | adapter).items():
        if component_class(index, component) not in classes:
            raise UnsupportedModel(
                f"The {component} of this pipeline is {component_class(index, component)}; what can be built: "
                f"{', '.join(classes)}."
            )
    check_libraries(index, motion_folders(index))
    return "animatediff"


def read_motion(folder: Path) -> MotionPipeline:
    """Read the AnimateDiff pipeline in a folder. Raises SourceUnavailable, UnsupportedModel."""
    index = read_json(folder / "model_index.json", needed=True)
    pipeline = MotionPipeline(folder, check_motion_index(index), index["_class_name"], index)
    if not (folder / tokenizer_folder("text_encoder")).is_dir():
        raise SourceUnavailable(f"{folder} has no tokenizer, which text_encoder needs.")
    config = pipeline.config("unet")
    adapter = pipeline.config(ADAPTER) if has_adapter(index) else {}
    channels = adapter.get("conv_in_channels") or config.get("in_channels", 4)
    if channels != pipeline.latent_channels:
        raise UnsupportedModel(
            f"The UNet takes {channels} channels where the VAE has {pipeline.latent_channels}: it starts from a "
            "picture, which is not built."
        )
    for key in ("addition_embed_type", "encoder_hid_dim_type", "time_cond_proj_dim"):
        if config.get(key) is not None:
            raise UnsupportedModel(f"The UNet has {key} = {config[key]!r}, which is not built.")
    return pipeline


def is_motion(index: Mapping[str, Any]) -> bool:
    """Return whether a `model_index.json` is that of an AnimateDiff pipeline."""
    return index.get("_class_name") in MOTION_PIPELINES
