"""From a pipeline's version folder to a desk that takes requests."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from backends.diffusion.components import Components
from backends.diffusion.denoiser import Denoiser
from backends.diffusion.families import make_family
from backends.diffusion.latent_decoder import LatentDecoder
from backends.diffusion.options import read_options
from backends.diffusion.pipeline_config import read_pipeline_config
from backends.diffusion.preprocessor import Preprocessor
from backends.diffusion.request_frontend import DiffusionFrontend
from backends.diffusion.schedulers import make_scheduler
from backends.diffusion.stats import Stats
from backends.diffusion.text_encoders import TextEncoders

_DEFAULT_MAX_BATCH = 16


def load_pipeline(
    folder: Path, parameters: Mapping[str, Mapping[str, Any]], components: Components
) -> tuple[DiffusionFrontend, Stats]:
    """Open a desk. Raises `FileNotFoundError`, or `ValueError` with a sentence that says what is wrong."""
    description = read_pipeline_config(folder)
    options = read_options(parameters, description.size_multiple)
    # Guidance doubles rows, and the builder has components take as many.
    most = description.max_batch or max(_DEFAULT_MAX_BATCH, 2 * options.max_rows)
    description = replace(description, max_batch=most)
    scheduler = make_scheduler(description.scheduler, description.family, 2 * description.vae.factor)
    family = make_family(description, TextEncoders(folder, description, components))
    figures = Stats()
    denoiser = Denoiser(components, family, description, options.max_rows, figures)
    decoder = LatentDecoder(components, description)
    preparing = Preprocessor(family, scheduler, description, options, components)
    return DiffusionFrontend(preparing, denoiser, decoder, options.max_waiting, options.max_waiting_bytes), figures
