"""The denoising of one request: a job of several rows, one for each image or video."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from backends.diffusion.families.family import Floats, GuidedPrompt
from backends.diffusion.noise import NoiseGenerator
from backends.diffusion.pipeline_config import LatentShape, Vae
from backends.diffusion.schedulers import Latent, Plan, SolverState

_LOG_VARIANCE_RANGE = (-30.0, 20.0)
"""Bounds of the logarithm of the variance, as in diffusers' `DiagonalGaussianDistribution`."""


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """The encoded image that denoising starts from: `moments`, float32[2 C, h, w], is the output of the VAE encoder.

    With a `mask`, float32[h, w], only the cells that are 1 change. With `from_noise` the first latent is pure noise.
    """

    moments: Floats
    mask: Floats | None = None
    from_noise: bool = False


@dataclass(eq=False, slots=True)
class DenoisingJob:
    """The images or the video of one request. The denoiser's thread calls the callbacks, which must return at once.

    After each run it calls `on_progress` with the finished share of the work, 0 to 1, then `on_finished` with the rows
    that are complete. `on_preview` gets a row, the number of the preview and its latent when a preview is due.
    `on_failed` ends the job.
    """

    shape: LatentShape
    plan: Plan
    guided_prompt: GuidedPrompt
    vae: Vae
    seeds: tuple[int, ...]
    on_progress: Callable[[float], None]
    on_finished: Callable[[list["BatchRow"]], None]
    on_failed: Callable[[Exception], None]
    on_preview: Callable[["BatchRow", int, Latent], None] | None = None
    previews: Mapping[int, int] = field(default_factory=dict)
    """The number of the preview that is due, by the number of runs that a row has had."""
    encoded_image: EncodedImage | None = None
    init_latent: Latent | None = None
    """The latent of a video that denoising starts from, float32 of `shape`."""
    first_frame: Latent | None = None
    """The clean first frame of the latent, float32[C, 1, h, w]: the denoiser sees it at timestep 0, and it stays."""
    frame_timesteps: bool = False
    """True if the denoiser has a timestep for each latent frame."""
    rows: list["BatchRow"] = field(init=False)
    ended: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.rows = [BatchRow(self, index, seed) for index, seed in enumerate(self.seeds)]

    @property
    def num_runs(self) -> int:
        """The number of times that each row goes through the denoiser."""
        return len(self.plan.timesteps)

    def progress(self) -> float:
        """Return the finished share of the work, 0 to 1."""
        return sum(row.next_run for row in self.rows) / (self.num_runs * len(self.rows))


class BatchRow:
    """One image or video. Once its job is submitted, only the denoiser's thread uses it."""

    def __init__(self, job: DenoisingJob, index: int, seed: int) -> None:
        self.job = job
        self.index = index
        self.seed = seed
        self.next_run = 0
        self.started = False
        self.sample: Latent
        self._noise: NoiseGenerator
        self._state: SolverState
        self._init_latent: Latent
        self._init_noise: Latent

    @property
    def done(self) -> bool:
        """True once `sample` is the final latent."""
        return self.next_run == self.job.num_runs

    def begin(self) -> None:
        """Draw the first latent. The draws have the order of diffusers' pipelines, so that seeds give equal images."""
        job = self.job
        self._noise, self._state, self.started = NoiseGenerator(self.seed), job.plan.begin(), True
        if job.init_latent is not None:
            self.sample = job.plan.add_noise(job.init_latent, self._noise.normal(job.shape), 0)
            return
        if job.encoded_image is None:
            self.sample = self._noise.normal(job.shape) * np.float32(job.plan.initial_scale)
            return
        mean, log_variance = np.split(job.encoded_image.moments, 2)
        deviation = np.exp(np.float32(0.5) * log_variance.clip(*_LOG_VARIANCE_RANGE))
        self._init_latent = job.vae.scale(mean + deviation * self._noise.normal(job.shape))
        self._init_noise = self._noise.normal(job.shape)
        if job.encoded_image.mask is not None:
            # diffusers' pipelines draw once more, to encode the unmasked part for models that have it as an input.
            self._noise.normal(job.shape)
        if job.encoded_image.from_noise:
            self.sample = self._init_noise * np.float32(job.plan.initial_scale)
        else:
            self.sample = job.plan.add_noise(self._init_latent, self._init_noise, 0)

    def denoiser_input(self) -> Latent:
        """Return the latent that the denoiser gets, float32 of the job's shape."""
        return self._with_first_frame(self.job.plan.scale_input(self.next_run, self.sample))

    def timestep(self) -> np.float32 | Latent:
        """Return the timestep that the denoiser gets: one number, or float32[F] with one for each latent frame."""
        timestep = np.float32(self.job.plan.timesteps[self.next_run])
        if not self.job.frame_timesteps:
            return timestep
        timesteps = np.full(self.job.shape[1], timestep)
        if self.job.first_frame is not None:
            timesteps[0] = 0
        return timesteps

    def advance(self, output: Latent) -> Latent | None:
        """Take a step with the denoiser's output, and return the latent of a preview if one is due."""
        job, before = self.job, self.sample
        after = job.plan.step(self.next_run, output, before, self._state, self._noise)
        self.next_run += 1
        number = job.previews.get(self.next_run)
        preview = None
        if number is not None and not self.done:
            preview = predict_final_latent(job.plan, self.next_run - 1, before, after)
        if job.encoded_image is not None and (mask := job.encoded_image.mask) is not None:
            unmasked = (
                self._init_latent
                if self.done
                else job.plan.add_noise(self._init_latent, self._init_noise, self.next_run)
            )
            after = (1 - mask) * unmasked + mask * after
            preview = None if preview is None else (1 - mask) * self._init_latent + mask * preview
        # diffusers' pipelines do not put the first frame back between two runs; no other frame depends on it there.
        self.sample = self._with_first_frame(after) if self.done else after
        return None if preview is None else self._with_first_frame(preview)

    def _with_first_frame(self, latent: Latent) -> Latent:
        first = self.job.first_frame
        return latent if first is None else np.concatenate([first, latent[:, first.shape[1] :]], axis=1)


def predict_final_latent(plan: Plan, run: int, before: Latent, after: Latent) -> Latent:
    """Extrapolate the step from `before` to `after` in a straight line to the final latent.

    A latent is `signal * image + noise * direction`; `add_noise` shows the factors `signal` and `noise` of each run.
    Two latents on one line determine `image`.
    """
    one, zero = np.ones(1, np.float32), np.zeros(1, np.float32)
    signals = [float(plan.add_noise(one, zero, i)[0]) for i in (run, run + 1)]
    noises = [float(plan.add_noise(zero, one, i)[0]) for i in (run, run + 1)]
    determinant = noises[1] * signals[0] - noises[0] * signals[1]
    if abs(determinant) < 1e-6:
        return after
    scale_before, scale_after = np.float32(noises[1] / determinant), np.float32(noises[0] / determinant)
    return (scale_before * before - scale_after * after).astype(np.float32)
