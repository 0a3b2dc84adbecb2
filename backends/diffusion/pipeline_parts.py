"""The parts that pipelines of images and pipelines of videos share."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backends.diffusion.components import Components
from backends.diffusion.denoiser import Denoiser
from backends.diffusion.families import Family, make_family
from backends.diffusion.options import Options
from backends.diffusion.pipeline_config import PipelineConfig
from backends.diffusion.schedulers import Scheduler, make_scheduler
from backends.diffusion.text_encoders import TextEncoders

_DEFAULT_MAX_BATCH = 16
"""Rows that a component takes at once if its builder does not say."""

Parameters = Mapping[str, Mapping[str, Any]]
"""The parameters of `config.pbtxt`: `{"max_rows": {"string_value": "8"}}`."""


@dataclass(frozen=True, slots=True)
class PipelineParts:
    """The parts of a pipeline that is being loaded. `denoiser` has a thread, which its `close` ends."""

    config: PipelineConfig
    family: Family
    scheduler: Scheduler
    denoiser: Denoiser


def load_parts(folder: Path, config: PipelineConfig, options: Options, components: Components) -> PipelineParts:
    """Return the parts of the pipeline in a version folder. Raises `FileNotFoundError` or `ValueError`."""
    # Guidance doubles the rows, so the builder exports components for twice as many.
    max_batch = config.max_batch or max(_DEFAULT_MAX_BATCH, 2 * options.max_rows)
    config = replace(config, max_batch=max_batch)
    scheduler = make_scheduler(config.scheduler, config.family, 2 * config.vae.factor)
    family = make_family(config, TextEncoders(folder, config, components))
    return PipelineParts(config, family, scheduler, Denoiser(components, family, config, options.max_rows))
