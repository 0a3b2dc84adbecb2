"""The validation and encoding of requests: the part that images and videos share."""

import math
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from backends.diffusion.components import Components
from backends.diffusion.denoising_job import BatchRow, DenoisingJob, EncodedImage
from backends.diffusion.families import Family, GuidedPrompt
from backends.diffusion.options import Options, Size
from backends.diffusion.pipeline_config import LatentShape, PipelineConfig, Vae
from backends.diffusion.request import Request
from backends.diffusion.schedulers import Latent, Plan, Scheduler
from backends.serving.errors import Cancelled, InvalidValue, UnsupportedOption

MAX_PREVIEWS = 3
"""Previews that a request may ask for, per image or video."""
DEFAULT_STRENGTH = 0.8
NUM_SEEDS = 1 << 64
"""Seeds that a client may send: 0 to this minus 1."""
_MAX_GUIDANCE_SCALE = 100.0
_NUM_RANDOM_SEEDS = 1 << 32
"""Seeds among which one is drawn if the client sends none."""

OptionsT = TypeVar("OptionsT", bound=Options)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessedRequest:
    """A request whose texts and files are encoded. The last three fields are as in `DenoisingJob`."""

    shape: LatentShape
    plan: Plan
    guided_prompt: GuidedPrompt
    vae: Vae
    seeds: tuple[int, ...]
    previews: dict[int, int]
    encoded_image: EncodedImage | None = None
    init_latent: Latent | None = None
    first_frame: Latent | None = None
    frame_timesteps: bool = False

    def make_job(
        self,
        on_progress: Callable[[float], None],
        on_finished: Callable[[list[BatchRow]], None],
        on_failed: Callable[[Exception], None],
        on_preview: Callable[[BatchRow, int, Latent], None],
    ) -> DenoisingJob:
        """Return the job for the denoiser, with its callbacks."""
        return DenoisingJob(
            shape=self.shape,
            plan=self.plan,
            guided_prompt=self.guided_prompt,
            vae=self.vae,
            seeds=self.seeds,
            on_progress=on_progress,
            on_finished=on_finished,
            on_failed=on_failed,
            on_preview=on_preview,
            previews=self.previews,
            encoded_image=self.encoded_image,
            init_latent=self.init_latent,
            first_frame=self.first_frame,
            frame_timesteps=self.frame_timesteps,
        )


RequestT = TypeVar("RequestT", bound=Request)
PreprocessedT = TypeVar("PreprocessedT", bound=PreprocessedRequest)


class Preprocessor(ABC, Generic[RequestT, PreprocessedT, OptionsT]):
    """Validates requests against a model's options, and calls its encoders. May be used from any thread."""

    def __init__(
        self,
        family: Family,
        scheduler: Scheduler,
        config: PipelineConfig,
        options: OptionsT,
        components: Components,
    ) -> None:
        self._family = family
        self._scheduler = scheduler
        self._config = config
        self._options = options
        self._components = components

    @abstractmethod
    def preprocess(self, request: RequestT, is_cancelled: Callable[[], bool]) -> PreprocessedT:
        """Validate and encode a request.

        Raises `GenerationError`, naming the input at fault, and `Cancelled` once `is_cancelled` returns true.
        """

    def _check_options(self, request: Request) -> None:
        """Check the inputs that images and videos share and that no other method of this class checks."""
        if request.steps is not None:
            check_range(request.steps, 1, self._options.max_steps, "steps")
        check_range(request.partial_images, 0, MAX_PREVIEWS, "partial_images")
        if request.quality is not None:
            check_range(request.quality, 0, 100, "quality")
        if request.seed is not None:
            check_range(request.seed, 0, NUM_SEEDS - 1, "seed")

    def _steps(self, request: Request) -> int:
        return self._options.default_steps if request.steps is None else request.steps

    def _guidance(self, request: Request) -> float:
        scale = request.guidance_scale
        if scale is None:
            return self._options.default_guidance
        if not math.isfinite(scale) or not 0 <= scale <= _MAX_GUIDANCE_SCALE:
            raise InvalidValue(f"This must be from 0 to {_MAX_GUIDANCE_SCALE:.0f}, not {scale}.", "guidance_scale")
        if scale > 1 and self._config.guidance == "none":
            raise UnsupportedOption("This model has no guidance scale.", "guidance_scale")
        return scale

    def _size(self, request: Request, default: Size) -> Size:
        size = (
            default[0] if request.width is None else request.width,
            default[1] if request.height is None else request.height,
        )
        if size != default:
            self._options.check_size(size)
        return size


def first_seed(request: Request) -> int:
    """Return the seed of the request, or a random one."""
    return secrets.randbelow(_NUM_RANDOM_SEEDS) if request.seed is None else request.seed


def preview_schedule(runs: int, count: int) -> dict[int, int]:
    """Return the number of each preview by the number of runs after which it is due.

    `count` previews are spread evenly over the runs; there are fewer if there are few runs.
    """
    due = sorted({round(runs * number / (count + 1)) for number in range(1, count + 1)} - {0, runs})
    return {run: number for number, run in enumerate(due)}


def check_strength(strength: float) -> None:
    """Raise `InvalidValue` for a strength that is out of range."""
    if not 0 < strength <= 1:
        raise InvalidValue(f"This must be above 0 and at most 1, not {strength}.", "strength")


def check_range(value: int, low: int, high: int, name: str) -> None:
    """Raise `InvalidValue` for an integer that is out of range."""
    if not low <= value <= high:
        raise InvalidValue(f"This must be from {low} to {high}, not {value}.", name)


def raise_if_cancelled(is_cancelled: Callable[[], bool]) -> None:
    """Raise `Cancelled` if the request has been cancelled."""
    if is_cancelled():
        raise Cancelled("The request was cancelled.")
