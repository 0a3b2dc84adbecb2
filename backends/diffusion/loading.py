"""Loading of a pipeline from its version folder."""

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
"""Rows that a component takes at once if its builder does not say."""


def load_pipeline(
    folder: Path, parameters: Mapping[str, Mapping[str, Any]], components: Components
) -> tuple[DiffusionFrontend, Stats]:
    """Return a frontend for the pipeline in `folder`, and its stats. `parameters` are those of `config.pbtxt`.

    Raises `FileNotFoundError`, or `ValueError` with a sentence for people.
    """
    config = read_pipeline_config(folder)
    options = read_options(parameters, config.size_multiple)
    # Guidance doubles the rows, so the builder exports components for twice as many.
    max_batch = config.max_batch or max(_DEFAULT_MAX_BATCH, 2 * options.max_rows)
    config = replace(config, max_batch=max_batch)
    scheduler = make_scheduler(config.scheduler, config.family, 2 * config.vae.factor)
    family = make_family(config, TextEncoders(folder, config, components))
    stats = Stats()
    denoiser = Denoiser(components, family, config, options.max_rows, stats)
    decoder = LatentDecoder(components, config)
    preprocessor = Preprocessor(family, scheduler, config, options, components)
    return DiffusionFrontend(preprocessor, denoiser, decoder, options.max_waiting, options.max_waiting_bytes), stats
