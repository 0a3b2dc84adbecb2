"""Read a video pipeline's folder in diffusers' layout, without torch or diffusers."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from builders.checkpoint import read_json
from builders.diffusion.pipeline import SCHEDULERS, PipelineFolder, check_libraries, component_class, tokenizer_folder
from builders.errors import SourceUnavailable, UnsupportedModel

PIPELINES = ("WanPipeline", "WanImageToVideoPipeline")
"""Supported pipelines of diffusers, by the name of their class."""

MOTION_PIPELINES = ("AnimateDiffPipeline",)
"""Those of `builders.video.motion_pipeline`."""

COMPONENTS = {
    "text_encoder": ("UMT5EncoderModel",),
    "transformer": ("WanTransformer3DModel",),
    "vae": ("AutoencoderKLWan",),
    "scheduler": SCHEDULERS,
}
"""Supported classes of the components that every pipeline has."""

IMAGE_ENCODERS = ("CLIPVisionModel", "CLIPVisionModelWithProjection")
"""Supported classes of the component `image_encoder`, which Wan 2.1's image-to-video pipelines have."""

FOLDERS = (*COMPONENTS, "tokenizer", "image_encoder", "image_processor")
"""Folders of a pipeline that decide what is built."""

MAX_TEXT_TOKENS = 512
"""Prompt tokens: the default of diffusers' pipelines."""

ImageConditioning = Literal["none", "first-frame", "channels"]


@dataclass(frozen=True, slots=True)
class VideoPipeline(PipelineFolder):
    """A folder with a pipeline that makes videos."""

    @property
    def vae_scale_factor(self) -> int:
        """Pixels of a frame for one latent cell, along each side."""
        return int(self.config("vae").get("scale_factor_spatial") or 8)

    @property
    def temporal_factor(self) -> int:
        """Frames of the video for one latent frame, but for the first, which stands for one."""
        return int(self.config("vae").get("scale_factor_temporal") or 4)

    @property
    def latent_channels(self) -> int:
        """Channels of a latent."""
        return int(self.config("vae").get("z_dim", 16))

    @property
    def latent_statistics(self) -> dict[str, list[float]]:
        """`latents_mean` and `latents_std`, one number for each channel. Raises SourceUnavailable without them."""
        config = self.config("vae")
        found: dict[str, Any] = {name: config.get(name) for name in ("latents_mean", "latents_std")}
        if any(not isinstance(values, list) or len(values) != self.latent_channels for values in found.values()):
            raise SourceUnavailable(
                f"{self.folder}/vae/config.json has no latents_mean and latents_std of {self.latent_channels} numbers."
            )
        return found

    @property
    def patch_size(self) -> tuple[int, int, int]:
        """Frames, height and width of a patch of the denoiser, in latent cells."""
        frames, height, width = self.config("transformer").get("patch_size", (1, 2, 2))
        return frames, height, width

    @property
    def size_multiple(self) -> int:
        """Width and height of a video are multiples of this many pixels, as in diffusers' pipelines."""
        return math.lcm(16, self.vae_scale_factor * self.patch_size[1])

    @property
    def expand_timesteps(self) -> bool:
        """Return whether every latent frame has a timestep of its own."""
        return bool(self.index.get("expand_timesteps", False))

    @property
    def image_conditioning(self) -> ImageConditioning:
        """The way in which the denoiser gets a picture: as its clean first frame, or as more channels of its input."""
        if self.expand_timesteps:
            return "first-frame"
        return "channels" if self.class_name == "WanImageToVideoPipeline" else "none"

    @property
    def condition_channels(self) -> int:
        """Channels of the denoiser's input besides the latent's: those of the picture, and of a mask."""
        return int(self.config("transformer").get("in_channels", 16)) - self.latent_channels

    @property
    def has_image_encoder(self) -> bool:
        """Return whether the denoiser attends to tokens of the picture."""
        return self.config("transformer").get("image_dim") is not None

    @property
    def max_latent_frames(self) -> int:
        """The most latent frames for which the denoiser has positions."""
        return int(self.config("transformer").get("rope_max_seq_len", 1024))

    @property
    def max_side(self) -> int | None:
        """The largest side of a video, in pixels, for which the denoiser has positions; None for any."""
        return self.max_latent_frames * self.vae_scale_factor * self.patch_size[1]

    @property
    def num_tokens(self) -> int:
        """The fixed number of text tokens: prompts are padded or truncated to it."""
        configured = read_json(self.folder / tokenizer_folder("text_encoder") / "tokenizer_config.json").get(
            "model_max_length"
        )
        limit = int(configured) if isinstance(configured, int | float) and configured > 0 else MAX_TEXT_TOKENS
        return min(limit, MAX_TEXT_TOKENS)


def check_index(index: dict[str, Any]) -> str:
    """Return the family of a pipeline from its `model_index.json`. Raises UnsupportedModel, which names the class."""
    name = str(index.get("_class_name"))
    if name not in PIPELINES:
        known = ", ".join((*PIPELINES, *MOTION_PIPELINES))
        raise UnsupportedModel(f"The pipeline {name} cannot be built. Those that can: {known}.")
    if index.get("boundary_ratio") is not None or component_class(index, "transformer_2") is not None:
        raise UnsupportedModel(
            "This pipeline has a second transformer (transformer_2) for its last steps, which is not built. Wan 2.1 "
            "and Wan 2.2 TI2V have a single one."
        )
    encoder = {"image_encoder": IMAGE_ENCODERS} if component_class(index, "image_encoder") is not None else {}
    for component, classes in (COMPONENTS | encoder).items():
        if component_class(index, component) not in classes:
            raise UnsupportedModel(
                f"The {component} of this pipeline is {component_class(index, component)}; what can be built: "
                f"{', '.join(classes)}."
            )
    check_libraries(index, FOLDERS)
    return "wan"


def read(folder: Path) -> VideoPipeline:
    """Read the pipeline in a folder. Raises SourceUnavailable, UnsupportedModel."""
    index = read_json(folder / "model_index.json", needed=True)
    pipeline = VideoPipeline(folder, check_index(index), index["_class_name"], index)
    if not (folder / tokenizer_folder("text_encoder")).is_dir():
        raise SourceUnavailable(f"{folder} has no tokenizer, which text_encoder needs.")
    if pipeline.patch_size != (1, 2, 2):
        raise UnsupportedModel(f"The transformer has patches of {pipeline.patch_size}; those of (1, 2, 2) are built.")
    if pipeline.temporal_factor != 4:
        raise UnsupportedModel(
            f"The VAE joins {pipeline.temporal_factor} frames in a latent frame; diffusers' own pipeline needs 4."
        )
    _ = pipeline.latent_statistics
    _check_image_input(pipeline)
    return pipeline


def _check_image_input(pipeline: VideoPipeline) -> None:
    channels = pipeline.condition_channels
    if pipeline.image_conditioning != "channels" and (channels or pipeline.has_image_encoder):
        raise UnsupportedModel(
            f"The transformer takes {channels} channels besides the latent's, which a {pipeline.class_name} does not "
            "have."
        )
    wanted = pipeline.latent_channels + pipeline.temporal_factor
    if pipeline.image_conditioning == "channels" and channels != wanted:
        raise UnsupportedModel(f"The transformer takes {channels} channels of a picture; {wanted} are built.")
    if pipeline.has_image_encoder:
        if component_class(pipeline.index, "image_encoder") is None:
            raise UnsupportedModel("The transformer wants tokens of a picture, and the pipeline has no image_encoder.")
        if pipeline.config("transformer").get("pos_embed_seq_len") is not None:
            raise UnsupportedModel("The transformer wants a first and a last picture, which is not built.")
        if pipeline.num_tokens != MAX_TEXT_TOKENS:
            raise UnsupportedModel(
                f"The tokenizer gives {pipeline.num_tokens} tokens, and a transformer that attends to tokens of a "
                f"picture wants {MAX_TEXT_TOKENS}."
            )
