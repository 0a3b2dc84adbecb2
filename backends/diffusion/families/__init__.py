"""What sets the families of models apart: what prompts become, and what the denoiser takes and gives."""

from collections.abc import Callable

from backends.diffusion.families.family import Conditioning, Family, GuidedPrompt
from backends.diffusion.families.flux import Flux
from backends.diffusion.families.stable_diffusion import StableDiffusion
from backends.diffusion.families.stable_diffusion_3 import StableDiffusion3
from backends.diffusion.families.stable_diffusion_xl import StableDiffusionXL
from backends.diffusion.pipeline_config import PipelineConfig
from backends.diffusion.text_encoders import TextEncoders

__all__ = ["FAMILIES", "Conditioning", "Family", "GuidedPrompt", "make_family"]

FAMILIES: dict[str, Callable[[PipelineConfig, TextEncoders], Family]] = {
    "stable-diffusion": StableDiffusion,
    "stable-diffusion-xl": StableDiffusionXL,
    "stable-diffusion-3": StableDiffusion3,
    "flux": Flux,
}


def make_family(description: PipelineConfig, texts: TextEncoders) -> Family:
    """The rules of a pipeline's family. Raises `ValueError` for one that is not known, or lacks what it needs."""
    if description.family not in FAMILIES:
        raise ValueError(f"The family {description.family!r} is not known; there are {', '.join(FAMILIES)}.")
    try:
        return FAMILIES[description.family](description, texts)
    except KeyError as error:
        raise ValueError(f"The family {description.family} needs {error} in the pipeline's description.") from None
