"""The schedulers by their class names in diffusers."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from backends.diffusion.schedulers.ddim import DDIM, DDIMOptions
from backends.diffusion.schedulers.dpm_solver import DPMSolver, DPMSolverOptions
from backends.diffusion.schedulers.euler import Euler, EulerAncestral, EulerAncestralOptions, EulerOptions
from backends.diffusion.schedulers.flow_match import FlowMatch, FlowMatchOptions
from backends.diffusion.schedulers.lcm import LCM, LCMOptions
from backends.diffusion.schedulers.options import read_scheduler_options
from backends.diffusion.schedulers.plan import FamilyConfig, Scheduler
from backends.diffusion.schedulers.pndm import PNDM, PNDMOptions
from backends.diffusion.schedulers.unipc import UniPC, UniPCOptions

_SCHEDULERS: dict[str, tuple[type[Any], Callable[[Any, FamilyConfig], Scheduler]]] = {
    "DDIMScheduler": (DDIMOptions, DDIM),
    "DPMSolverMultistepScheduler": (DPMSolverOptions, DPMSolver),
    "EulerAncestralDiscreteScheduler": (EulerAncestralOptions, EulerAncestral),
    "EulerDiscreteScheduler": (EulerOptions, Euler),
    "FlowMatchEulerDiscreteScheduler": (FlowMatchOptions, FlowMatch),
    "LCMScheduler": (LCMOptions, LCM),
    "PNDMScheduler": (PNDMOptions, PNDM),
    "UniPCMultistepScheduler": (UniPCOptions, UniPC),
}
SCHEDULER_NAMES = tuple(_SCHEDULERS)
"""The supported scheduler classes of diffusers."""

# Options of other schedulers and of earlier diffusers versions, which diffusers ignores too.
_IGNORED_OPTIONS = frozenset(field.name for options, _ in _SCHEDULERS.values() for field in fields(options)) | {
    "class",
    "dynamic_thresholding_ratio",
    "sample_max_value",
    "variance_type",
}


def make_scheduler(
    config: Mapping[str, object], family: str = "stable-diffusion", pixels_per_token: int = 16
) -> Scheduler:
    """Return the scheduler that a diffusers config describes; its class is `class` or, as in diffusers, `_class_name`.

    `family` and `pixels_per_token` are as in `FamilyConfig`. Raises `ValueError`, naming it, for an unknown class or
    option and for an unsupported value of an option.
    """
    name = config.get("class", config.get("_class_name"))
    if not isinstance(name, str) or name not in _SCHEDULERS:
        raise ValueError(f"There is no scheduler {name!r}, only {', '.join(SCHEDULER_NAMES)}.")
    options, scheduler = _SCHEDULERS[name]
    return scheduler(
        read_scheduler_options(options, name, config, _IGNORED_OPTIONS), FamilyConfig(family, pixels_per_token)
    )
