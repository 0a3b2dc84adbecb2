"""Images on their way from noise: a job is what one request asks for, a row is one image of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from backends.diffusion.families.family import Floats, GuidedPrompt
from backends.diffusion.noise import NoiseGenerator
from backends.diffusion.pipeline_config import Vae
from backends.diffusion.schedulers import Latent, Plan, SolverState

# diffusers' `DiagonalGaussianDistribution` holds the logarithm of the variance within these.
_LOG_VARIANCE = (-30.0, 20.0)


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """A picture to begin with: `moments` float32[2 C, h, w] as the encoder gave them.

    Where there is a `mask`, float32[h, w], only what is 1 there changes. `anew` begins with nothing but noise.
    """

    moments: Floats
    mask: Floats | None = None
    from_noise: bool = False


@dataclass(eq=False, slots=True)
class DenoisingJob:
    """The images of one request. The callbacks come from the loop's thread and must return at once.

    `stepped` is called after each run with the share of the work that is done, then `finished` with the rows that are
    complete, and `previewed` with a row, the preview's number and its latent where one is due. `failed` ends the job.
    """

    shape: tuple[int, int, int]
    plan: Plan
    guided_prompt: GuidedPrompt
    vae: Vae
    seeds: tuple[int, ...]
    on_progress: Callable[[float], None]
    on_finished: Callable[[list["BatchRow"]], None]
    on_failed: Callable[[Exception], None]
    on_preview: Callable[["BatchRow", int, Latent], None] | None = None
    previews: Mapping[int, int] = field(default_factory=dict)
    """By how many runs of a row there were: the number of the preview that is due then."""
    encoded_image: EncodedImage | None = None
    rows: list["BatchRow"] = field(init=False)
    ended: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.rows = [BatchRow(self, index, seed) for index, seed in enumerate(self.seeds)]

    @property
    def num_runs(self) -> int:
        """How often each row goes through the denoiser."""
        return len(self.plan.timesteps)

    def progress(self) -> float:
        """How much of the work is done, from 0 to 1."""
        return sum(row.next_run for row in self.rows) / (self.num_runs * len(self.rows))


class BatchRow:
    """One image. Only the loop's thread touches it, once its job is submitted."""

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
        """Whether the latent is that of the finished image."""
        return self.next_run == self.job.num_runs

    def begin(self) -> None:
        """Draw the first latent, in the order in which diffusers' pipelines draw from an image's generator."""
        job = self.job
        self._noise, self._state, self.started = NoiseGenerator(self.seed), job.plan.begin(), True
        if job.encoded_image is None:
            self.sample = self._noise.normal(job.shape) * np.float32(job.plan.initial_scale)
            return
        mean, log_variance = np.split(job.encoded_image.moments, 2)
        deviation = np.exp(np.float32(0.5) * log_variance.clip(*_LOG_VARIANCE))
        self._init_latent = job.vae.scale(mean + deviation * self._noise.normal(job.shape))
        self._init_noise = self._noise.normal(job.shape)
        if job.encoded_image.mask is not None:
            # diffusers' pipelines encode what is left of the picture as well, for models that are shown it.
            self._noise.normal(job.shape)
        if job.encoded_image.from_noise:
            self.sample = self._init_noise * np.float32(job.plan.initial_scale)
        else:
            self.sample = job.plan.add_noise(self._init_latent, self._init_noise, 0)

    def denoiser_input(self) -> Latent:
        """What the denoiser is shown."""
        return self.job.plan.scale_input(self.next_run, self.sample)

    def advance(self, output: Latent) -> Latent | None:
        """Take a step with what the denoiser said. The latent of a preview, where one is due."""
        job, before = self.job, self.sample
        after = job.plan.step(self.next_run, output, before, self._state, self._noise)
        self.next_run += 1
        number = job.previews.get(self.next_run)
        seen = None if number is None or self.done else predict_final_latent(job.plan, self.next_run - 1, before, after)
        if job.encoded_image is not None and (mask := job.encoded_image.mask) is not None:
            kept = (
                self._init_latent
                if self.done
                else job.plan.add_noise(self._init_latent, self._init_noise, self.next_run)
            )
            after = (1 - mask) * kept + mask * after
            seen = None if seen is None else (1 - mask) * self._init_latent + mask * seen
        self.sample = after
        return seen


def predict_final_latent(plan: Plan, run: int, before: Latent, after: Latent) -> Latent:
    """What the image would be if the rest of the way were as straight as the step from `before` to `after` was.

    A latent is `signal * image + noise * something`, with the shares that `add_noise` shows. Two of them on one line
    give the image.
    """
    one, nothing = np.ones(1, np.float32), np.zeros(1, np.float32)
    signals = [float(plan.add_noise(one, nothing, at)[0]) for at in (run, run + 1)]
    noises = [float(plan.add_noise(nothing, one, at)[0]) for at in (run, run + 1)]
    whole = noises[1] * signals[0] - noises[0] * signals[1]
    if abs(whole) < 1e-6:
        return after
    return (np.float32(noises[1] / whole) * before - np.float32(noises[0] / whole) * after).astype(np.float32)
