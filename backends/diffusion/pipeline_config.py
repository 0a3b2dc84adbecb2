"""The file `pipeline.json`, in which the builder describes a pipeline: components, tokenizers and scheduler."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PIPELINE_FILE = "pipeline.json"
GUIDANCE_MODES = ("classifier-free", "embedded", "none")

Floats = npt.NDArray[np.float32]


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
    """The relation of images and latents: a latent is smaller by `factor` on each side and has `channels` channels.

    `mean` and `std`, one number for each channel, replace `shift_factor` if they are not empty.
    """

    scaling_factor: float
    shift_factor: float = 0.0
    factor: int = 8
    channels: int = 4
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def scale(self, encoded: Floats) -> Floats:
        """Scale the encoder's output, float32[…, C, h, w], to the units in which the denoiser was trained."""
        if self.mean:
            return (encoded - _channels(self.mean)) * np.float32(self.scaling_factor) / _channels(self.std)
        return (encoded - np.float32(self.shift_factor)) * np.float32(self.scaling_factor)

    def unscale(self, latent: Floats) -> Floats:
        """Scale a latent, float32[…, C, h, w], to the units of the decoder's input."""
        if self.mean:
            return latent * _channels(self.std) / np.float32(self.scaling_factor) + _channels(self.mean)
        return latent / np.float32(self.scaling_factor) + np.float32(self.shift_factor)


def _channels(values: tuple[float, ...]) -> Floats:
    return np.array(values, np.float32)[:, None, None]


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
        ),
        size_multiple=int(values.pop("size_multiple", 8 * int(vae.get("factor", 8)))),
        guidance=guidance,
        max_batch=int(values.pop("max_batch", 0)),
        extras=values,
    )
