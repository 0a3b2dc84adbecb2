"""The denoising loop without a network: a scripted denoiser, counting plans, and jobs that record their callbacks."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from backends.diffusion.denoising_job import BatchRow, DenoisingJob
from backends.diffusion.families import GuidedPrompt
from backends.diffusion.noise import NoiseGenerator
from backends.diffusion.pipeline_config import PipelineConfig, Vae
from backends.diffusion.schedulers import Latent, SolverState

VAE = Vae(scaling_factor=1.0)
CONFIG = PipelineConfig("scripted", (), "denoiser", None, "decoder", (), {}, VAE, 8, max_batch=6)
SMALL, LARGE = (4, 2, 2), (4, 4, 4)


class CountingPlan:
    """A plan that adds the denoiser's output to the latent; its timesteps are the indices of its runs."""

    initial_scale = 0.0

    def __init__(self, runs: int) -> None:
        self.timesteps = np.arange(runs, dtype=np.float32)

    def begin(self) -> SolverState:
        return SolverState()

    def scale_input(self, i: int, sample: Latent) -> Latent:
        return sample

    def step(self, i: int, model_output: Latent, sample: Latent, state: SolverState, noise: NoiseGenerator) -> Latent:
        return sample + model_output

    def add_noise(self, latent: Latent, noise: Latent, i: int) -> Latent:
        return latent


class PassthroughFamily:
    """A family without text encoders: its conditioning is one number, which the denoiser returns."""

    def encode_prompt(self, prompt: str, negative: str | None, scale: float, size: tuple[int, int]) -> GuidedPrompt:
        raise NotImplementedError

    def denoiser_inputs(self, samples: Any, timesteps: Any) -> dict[str, Any]:
        return {"sample": samples, "timestep": timesteps}

    def denoiser_output(self, predicted: Any, shape: tuple[int, ...]) -> Any:
        return predicted


@dataclass
class DenoiserCall:
    """One call of the denoiser."""

    shape: tuple[int, ...]
    timesteps: list[float]
    numbers: list[float]


class ScriptedComponents:
    """A denoiser that returns a row's number in every cell; it waits at `gate`, and fails if a number is 99."""

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.begun = threading.Semaphore(0)
        self.runs: list[DenoiserCall] = []

    def run(self, name: str, inputs: Mapping[str, Any], outputs: Sequence[str]) -> dict[str, Any]:
        assert name == "denoiser"
        assert list(outputs) == ["noise_pred"]
        numbers = inputs["number"].tolist()
        self.runs.append(DenoiserCall(inputs["sample"].shape, inputs["timestep"].tolist(), numbers))
        self.begun.release()
        assert self.gate.acquire(timeout=60)
        if 99 in numbers:
            raise RuntimeError("the network is broken")
        return {"noise_pred": np.broadcast_to(inputs["number"][:, None, None, None], inputs["sample"].shape)}

    def finish_runs(self, runs: int) -> None:
        """Let `runs` runs end, one after another."""
        for _ in range(runs):
            assert self.begun.acquire(timeout=60)
            self.gate.release()


@dataclass
class RecordedJob:
    """A job and the calls of its callbacks."""

    job: DenoisingJob
    progress: list[float] = field(default_factory=list)
    done: list[BatchRow] = field(default_factory=list)
    previews: list[tuple[int, int]] = field(default_factory=list)
    error: Exception | None = None
    ended: threading.Event = field(default_factory=threading.Event)


def recorded_job(
    number: float,
    runs: int = 2,
    images: int = 1,
    shape: tuple[int, int, int] = SMALL,
    negative: float | None = None,
    **options: Any,
) -> RecordedJob:
    """Make a job whose rows have `number`; with `negative` as the negative condition, guided by a scale of 3."""

    def finished(rows: list[BatchRow]) -> None:
        recorded.done += rows
        if len(recorded.done) == images:
            recorded.ended.set()

    def failed(error: Exception) -> None:
        recorded.error = error
        recorded.ended.set()

    def condition(value: float) -> dict[str, Any]:
        return {"number": np.array(value, np.float32)}

    guided = GuidedPrompt(condition(number), None if negative is None else condition(negative), 3.0)
    job = DenoisingJob(
        shape,
        CountingPlan(runs),
        guided,
        VAE,
        tuple(range(images)),
        on_progress=lambda fraction: recorded.progress.append(fraction),
        on_finished=finished,
        on_failed=failed,
        on_preview=lambda row, number, latent: recorded.previews.append((row.index, number)),
        **options,
    )
    recorded = RecordedJob(job)
    return recorded
