"""The file `pipeline.json`, in which the builder describes a pipeline: components, tokenizers and scheduler."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

PIPELINE_FILE = "pipeline.json"
GUIDANCE_MODES = ("classifier-free", "embedded", "none")
ImageConditioning = Literal["none", "first-frame", "channels"]

Floats = npt.NDArray[np.float32]
LatentShape = tuple[int, ...]
"""Channels, height and width of an image's latent; channels, frames, height and width of a video's."""


@dataclass(frozen=True, slots=True)
class TokenizerConfig:
    """The tokenizer of a text encoder: the folder of its `tokenizer.json`.

    It cuts texts to `max_length` tokens, and pads shorter ones to that length with the token `pad_id`.
    """

    folder: str
    max_length: int
    pad_id: int


@dataclass(frozen=True, slots=True)
class Vae:
    """The relation of pixels and latents: a latent is smaller by `factor` on each side and has `channels` channels.

    `mean` and `std`, one number for each channel, replace `shift_factor` if they are not empty. The first frame of a
    video is a latent frame of its own, and `temporal_factor` further ones share one; 0 if latents are those of images.
    """

    scaling_factor: float
    shift_factor: float = 0.0
    factor: int = 8
    channels: int = 4
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    temporal_factor: int = 0

    def latent_shape(self, size: tuple[int, int], num_frames: int = 1) -> LatentShape:
        """Return the shape of a latent for a width and a height in pixels, and a number of frames of a video."""
        width, height = size
        area = (height // self.factor, width // self.factor)
        if not self.temporal_factor:
            return (self.channels, *area)
        return (self.channels, 1 + (num_frames - 1) // self.temporal_factor, *area)

    def scale(self, encoded: Floats) -> Floats:
        """Scale the encoder's output to the units in which the denoiser was trained.

        The shape is [..., C, h, w], or [..., C, F, h, w] for videos.
        """
        if self.mean:
            return (encoded - self._channels(self.mean)) * np.float32(self.scaling_factor) / self._channels(self.std)
        return (encoded - np.float32(self.shift_factor)) * np.float32(self.scaling_factor)

    def unscale(self, latent: Floats) -> Floats:
        """Scale a latent, of a shape as in `scale`, to the units of the decoder's input."""
        if self.mean:
            return latent * self._channels(self.std) / np.float32(self.scaling_factor) + self._channels(self.mean)
        return latent / np.float32(self.scaling_factor) + np.float32(self.shift_factor)

    def _channels(self, values: tuple[float, ...]) -> Floats:
        return np.array(values, np.float32).reshape(-1, *[1] * (3 if self.temporal_factor else 2))


@dataclass(frozen=True, slots=True)
class ImageProcessor:
    """The input of an image encoder: a square of `size` pixels, normalised by `mean` and `std`, one for each colour."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class VideoParts:
    """The parts of a pipeline only where it generates videos.

    The VAE computes one latent frame a call. The first one is that of `vae_decoder` and `vae_encoder`; these components
    take each further one, and the `decoder_caches` or `encoder_caches` arrays that the call before returned. With
    `frame_timesteps` the denoiser has a timestep for each latent frame. `image_conditioning` is the way in which it
    takes a first frame: as a clean latent frame, as further channels, or not at all. With `image_encoder`, a component,
    it also gets the tokens of the first frame.
    """

    vae_decoder_next: str
    vae_encoder_next: str | None
    decoder_caches: int
    encoder_caches: int
    frame_timesteps: bool
    image_conditioning: ImageConditioning
    image_encoder: str | None = None
    image_processor: ImageProcessor | None = None


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """A pipeline. Its components are names of Triton models; `extras` are the options of single families.

    `guidance` is the denoiser's way of taking the guidance scale: `classifier-free`, by a second row for the negative
    prompt; `embedded`, as an input; `none`, not at all. Sides of images are multiples of `size_multiple` pixels.
    `max_batch` is the most rows that every component takes at once; 0 if the file does not state it.
    """

    family: str
    text_encoders: tuple[str, ...]
    denoiser: str
    vae_encoder: str | None
    vae_decoder: str
    tokenizers: tuple[TokenizerConfig, ...]
    scheduler: Mapping[str, Any]
    vae: Vae
    size_multiple: int
    guidance: str = "classifier-free"
    max_batch: int = 0
    video: VideoParts | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)


def read_pipeline_config(folder: Path) -> PipelineConfig:
    """Read `pipeline.json` in a version folder. Raises `FileNotFoundError`, or `ValueError` with a sentence."""
    path = folder / PIPELINE_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing.")
    try:
        document = json.loads(path.read_text("utf-8"))
        return _parse(dict(document))
    except KeyError as error:
        raise ValueError(f"{path} has no member {error}.") from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is invalid: {error}") from None


def _parse(values: dict[str, Any]) -> PipelineConfig:
    components, vae = values.pop("components"), values.pop("vae")
    tokenizers = tuple(
        TokenizerConfig(str(entry["folder"]), int(entry["max_length"]), int(entry["pad_id"]))
        for entry in values.pop("tokenizers")
    )
    encoders = tuple(components["text_encoders"])
    if len(encoders) != len(tokenizers):
        raise ValueError(f"there are {len(encoders)} text encoders and {len(tokenizers)} tokenizers")
    guidance = values.pop("guidance", GUIDANCE_MODES[0])
    if guidance not in GUIDANCE_MODES:
        raise ValueError(f"the guidance is {guidance!r}, which is none of {', '.join(GUIDANCE_MODES)}")
    return PipelineConfig(
        family=str(values.pop("family")),
        text_encoders=encoders,
        denoiser=str(components["denoiser"]),
        vae_encoder=components.get("vae_encoder"),
        vae_decoder=str(components["vae_decoder"]),
        tokenizers=tokenizers,
        scheduler=dict(values.pop("scheduler")),
        vae=Vae(
            scaling_factor=float(vae["scaling_factor"]),
            shift_factor=float(vae.get("shift_factor") or 0.0),
            factor=int(vae.get("factor", 8)),
            channels=int(vae.get("channels", 4)),
            mean=tuple(vae.get("latents_mean") or ()) if vae.get("latents_std") else (),
            std=tuple(vae.get("latents_std") or ()),
            temporal_factor=int(vae.get("temporal_factor", 0)),
        ),
        size_multiple=int(values.pop("size_multiple", 8 * int(vae.get("factor", 8)))),
        guidance=guidance,
        max_batch=int(values.pop("max_batch", 0)),
        video=_parse_video(values, components, vae) if vae.get("temporal_factor") else None,
        extras=values,
    )


def _parse_video(values: dict[str, Any], components: Mapping[str, Any], vae: Mapping[str, Any]) -> VideoParts:
    conditioning = values.pop("image_conditioning", "none")
    if conditioning not in get_args(ImageConditioning):
        raise ValueError(
            f"the image_conditioning is {conditioning!r}, not one of {', '.join(get_args(ImageConditioning))}"
        )
    return VideoParts(
        vae_decoder_next=str(components["vae_decoder_next"]),
        vae_encoder_next=components.get("vae_encoder_next"),
        decoder_caches=int(vae["decoder_caches"]),
        encoder_caches=int(vae.get("encoder_caches", 0)),
        frame_timesteps=bool(values.pop("expand_timesteps", False)),
        image_conditioning=conditioning,
        image_encoder=components.get("image_encoder"),
        image_processor=_parse_image_processor(values.pop("image_processor", None)),
    )


def _parse_image_processor(values: Mapping[str, Any] | None) -> ImageProcessor | None:
    if values is None:
        return None
    return ImageProcessor(int(values["size"]), tuple(values["mean"]), tuple(values["std"]))
