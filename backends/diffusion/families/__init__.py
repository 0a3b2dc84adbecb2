"""Model families: the encoding of prompts, and the inputs and outputs of the denoiser."""

from collections.abc import Callable

from backends.diffusion.families.family import Conditioning, Family, GuidedPrompt
from backends.diffusion.families.flux import Flux
from backends.diffusion.families.stable_diffusion import StableDiffusion
from backends.diffusion.families.stable_diffusion_3 import StableDiffusion3
from backends.diffusion.families.stable_diffusion_xl import StableDiffusionXL
from backends.diffusion.families.wan import Wan
from backends.diffusion.pipeline_config import PipelineConfig
from backends.diffusion.text_encoders import TextEncoders

__all__ = ["FAMILIES", "Conditioning", "Family", "GuidedPrompt", "make_family"]

FAMILIES: dict[str, Callable[[PipelineConfig, TextEncoders], Family]] = {
    "stable-diffusion": StableDiffusion,
    "stable-diffusion-xl": StableDiffusionXL,
    "stable-diffusion-3": StableDiffusion3,
    "flux": Flux,
    "wan": Wan,
    "animatediff": StableDiffusion,
}


def make_family(config: PipelineConfig, text_encoders: TextEncoders) -> Family:
    """Return the family of a pipeline. Raises `ValueError` if it is unknown or an option that it needs is missing."""
    if config.family not in FAMILIES:
        raise ValueError(f"The family {config.family!r} is not known; there are {', '.join(FAMILIES)}.")
    try:
        return FAMILIES[config.family](config, text_encoders)
    except KeyError as error:
        raise ValueError(f"The family {config.family} needs {error} in pipeline.json.") from None
