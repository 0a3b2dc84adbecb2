"""The interface of schedulers: a scheduler makes plans, and a plan is the sequence of denoiser runs for an image.

Everything here handles one image. A latent is float32 of any shape without a batch dimension: [C, h, w], or [tokens,
width] for a family that packs latents. The rows of a batch are images at different runs of different plans; for each
row the pipeline keeps the plan, the state, the index of the next run and the latent.

    plan = scheduler.plan(steps=20)
    state, noise = plan.begin(), NoiseGenerator(seed)
    sample = noise.normal(shape) * plan.initial_scale
    for i, timestep in enumerate(plan.timesteps):
        output = denoise(plan.scale_input(i, sample), timestep)  # after guidance
        sample = plan.step(i, output, sample, state, noise)

An edit of an image starts from `plan.add_noise(latent, noise.normal(shape), 0)` instead. If only a masked part may
change, the rest is restored after each step from `plan.add_noise(latent, the same noise, i + 1)`, and after the last
step from the latent itself.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from backends.diffusion.noise import NoiseGenerator

Latent = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class FamilyConfig:
    """The facts about a model's family that schedulers need, because diffusers' pipelines call them differently.

    `family` is as in `pipeline.json`. `pixels_per_token` is the side, in pixels, of the square that is one token of the
    denoiser: 8 of the VAE times 2 of the patches.
    """

    family: str = "stable-diffusion"
    pixels_per_token: int = 16


@dataclass(slots=True)
class SolverState:
    """The memory of a solver for one image between runs. `Plan.begin` creates it; only `Plan.step` changes it."""

    outputs: list[Latent] = field(default_factory=list)
    sample: Latent | None = None


class Plan(Protocol):
    """The denoiser runs for one image. A plan is immutable, so images and threads may share it.

    No method writes to its arguments. `step` may keep its arguments in the state, so the caller must not write to them
    afterwards.
    """

    @property
    def timesteps(self) -> npt.NDArray[np.float32]:
        """The denoiser's timestep input at each run, float32[runs], before any scaling by the family (Flux divides by
        1000). The denoiser runs `len(plan.timesteps)` times: PNDM needs one run more than the requested steps, and
        `strength` omits the first steps."""

    @property
    def initial_scale(self) -> float:
        """The factor that turns normal noise into the first latent of an image that does not edit another."""

    def begin(self) -> SolverState:
        """Return the state of an image before its first run."""

    def scale_input(self, i: int, sample: Latent) -> Latent:
        """Return the denoiser's input at run `i`, from 0 on: the latent in the units of its training."""

    def step(self, i: int, model_output: Latent, sample: Latent, state: SolverState, noise: NoiseGenerator) -> Latent:
        """Return the latent after run `i`; after the last run it is that of the finished image.

        Runs are called in order and none is skipped. `sample` is the latent before the run, not the result of
        `scale_input`; `model_output` is the denoiser's output after guidance, of the same shape. Only schedulers that
        add noise (ancestral ones, LCM, stochastic solvers) draw from the image's generator `noise`, once per run at
        most.
        """

    def add_noise(self, latent: Latent, noise: Latent, i: int) -> Latent:
        """Mix a finished latent with `noise`, float32 of its shape, at the noise level of samples before run `i`."""


class BasePlan:
    """The base of plans whose state is empty before the first run."""

    __slots__ = ()

    def begin(self) -> SolverState:
        """Return an empty state."""
        return SolverState()


class UnscaledPlan(BasePlan):
    """The base of plans whose samples are in the units of the denoiser's training."""

    __slots__ = ()

    initial_scale = 1.0

    def scale_input(self, i: int, sample: Latent) -> Latent:
        """Return the sample itself."""
        return sample


class Scheduler(Protocol):
    """A scheduler; each model has one. May be used from any thread."""

    def plan(self, steps: int, strength: float = 1.0, size: tuple[int, int] | None = None) -> Plan:
        """Return a plan of `steps` steps, or of the share `strength`, 0 to 1, at their end.

        diffusers' `get_timesteps` defines how many steps a share is.
        `size`, width and height of the image in pixels, is used only with `use_dynamic_shifting` (Flux, SD 3.5). Raises
        `InvalidValue` for `steps` below 1 or above the model's number, and for a `strength` that is out of range or
        leaves no step.
        """
