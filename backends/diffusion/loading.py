"""From a pipeline's version folder to a desk that takes requests."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from backends.diffusion.components import Components
from backends.diffusion.decoder import Decoder
from backends.diffusion.denoiser import Denoiser
from backends.diffusion.description import read_description
from backends.diffusion.desk import Desk
from backends.diffusion.families import make_family
from backends.diffusion.figures import Figures
from backends.diffusion.options import read_options
from backends.diffusion.preparing import Preparing
from backends.diffusion.schedulers import make
from backends.diffusion.texts import TextEncoders

_BATCH = 16


def load(folder: Path, parameters: Mapping[str, Mapping[str, Any]], components: Components) -> tuple[Desk, Figures]:
    """Open a desk. Raises `FileNotFoundError`, or `ValueError` with a sentence that says what is wrong."""
    description = read_description(folder)
    options = read_options(parameters, description.size_multiple)
    # Guidance doubles rows, and the builder has components take as many.
    most = description.max_batch or max(_BATCH, 2 * options.max_rows)
    description = replace(description, max_batch=most)
    scheduler = make(description.scheduler, description.family, 2 * description.vae.factor)
    family = make_family(description, TextEncoders(folder, description, components))
    figures = Figures()
    denoiser = Denoiser(components, family, description, options.max_rows, figures)
    decoder = Decoder(components, description)
    preparing = Preparing(family, scheduler, description, options, components)
    return Desk(preparing, denoiser, decoder, options.max_waiting, options.max_waiting_bytes), figures
