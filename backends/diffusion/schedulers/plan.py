"""What a scheduler is to the pipeline: a plan of runs of the denoiser for an image.

Everything here is about one image. A latent is float32 of any shape without a batch dimension ([C, h, w], or [tokens,
width] where a family packs it). Rows of a batch are images at different runs of different plans: the pipeline keeps a
plan, a state, the number of the next run, and the latent for each row.

    plan = scheduler.plan(steps=20)
    state, noise = plan.begin(), Noise(seed)
    sample = noise.normal(shape) * plan.initial_scale
    for i, timestep in enumerate(plan.timesteps):
        output = denoise(plan.scale_input(i, sample), timestep)  # after guidance
        sample = plan.step(i, output, sample, state, noise)

An image that changes a given one begins with `plan.add_noise(latent, noise.normal(shape), 0)` instead. Where only a
part of it is to change, what is kept is put back after each step: `plan.add_noise(latent, the same noise, i + 1)`, or
the latent itself after the last one.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from backends.diffusion.noise import NoiseGenerator

Latent = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FamilyConfig:
    """What schedulers need to know of the model's family: its pipelines in diffusers do not all ask in the same way.

    `family` is as in `pipeline.json`. `pixels_per_token` is the width of the square of the picture that is one token of
    the denoiser: 8 of the VAE times 2 of the patches.
    """

    family: str = "stable-diffusion"
    pixels_per_token: int = 16


@dataclass(slots=True)
class SolverState:
    """What the solver remembers of one image from run to run. Made by `Plan.begin`, changed by `Plan.step` alone."""

    outputs: list[Latent] = field(default_factory=list)
    sample: Latent | None = None


class Plan(Protocol):
    """The runs of the denoiser for one image. Never changes: images may share it, and threads too.

    The arrays that are given are never written to. What `step` is given may be kept in the state, so the caller must
    not write to it afterwards either.
    """

    @property
    def timesteps(self) -> npt.NDArray[np.float32]:
        """What the denoiser is told at each run, float32[runs], as diffusers' pipelines tell it before any scaling of
        their own (Flux divides by 1000). `len(plan.timesteps)` is how often the denoiser runs: PNDM needs one run more
        than steps were asked for, and `strength` leaves out the first ones."""

    @property
    def initial_scale(self) -> float:
        """What normal noise is multiplied by to become the first latent of an image that changes no other."""

    def begin(self) -> SolverState:
        """The state of an image before its first run."""

    def scale_input(self, i: int, sample: Latent) -> Latent:
        """What the denoiser is shown at run `i` (from 0 on): the latent in the units that it was trained in."""

    def step(self, i: int, model_output: Latent, sample: Latent, state: SolverState, noise: NoiseGenerator) -> Latent:
        """The latent after run `i`; after the last run it is the image's. Runs follow one another, none is left out.

        `sample` is the latent before the run, not what `scale_input` made of it; `model_output` has its shape and is
        what the denoiser said, after guidance. `noise` is the image's own, and is drawn from only by schedulers that
        add noise in between (ancestral ones, LCM, stochastic solvers), at most once a run.
        """

    def add_noise(self, latent: Latent, noise: Latent, i: int) -> Latent:
        """A finished latent with as much of `noise`, float32 of its shape, as there is in samples before run `i`."""


class BasePlan:
    """What plans share whose images remember nothing before their first run."""

    __slots__ = ()

    def begin(self) -> SolverState:
        """An empty state."""
        return SolverState()


class UnscaledPlan(BasePlan):
    """What plans share whose samples are in the units that the denoiser was trained in."""

    __slots__ = ()

    initial_scale = 1.0

    def scale_input(self, i: int, sample: Latent) -> Latent:
        """The sample itself."""
        return sample


class Scheduler(Protocol):
    """Made once for a model. Any thread may ask for plans."""

    def plan(self, steps: int, strength: float = 1.0, size: tuple[int, int] | None = None) -> Plan:
        """A plan of `steps` steps, or of the last `strength` (0 to 1) of them, as many as diffusers' `get_timesteps`
        leaves.

        `size` is width and height of the picture in pixels, and needed only by schedulers that go by it (Flux, SD 3.5:
        `use_dynamic_shifting`). Raises `InvalidValue` for `steps` where they are fewer than 1 or more than the model
        knows, and for `strength` where it is out of range or leaves no step at all.
        """
