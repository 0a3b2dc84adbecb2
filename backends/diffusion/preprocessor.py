"""The validation and encoding of a request, which yield a job for the denoiser."""

import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backends.diffusion.components import Components
from backends.diffusion.denoising_job import BatchRow, DenoisingJob, EncodedImage
from backends.diffusion.families import Family, GuidedPrompt
from backends.diffusion.images import OUTPUT_FORMATS, Pixels, encode_image
from backends.diffusion.init_image import InitImage, load_init_image
from backends.diffusion.options import Options, Size
from backends.diffusion.pipeline_config import PipelineConfig, Vae
from backends.diffusion.request import Request
from backends.diffusion.schedulers import Latent, Plan, Scheduler
from backends.serving.errors import Cancelled, InvalidValue, UnsupportedOption

MAX_PREVIEWS = 3
"""Previews that a request may ask for, per image."""
_MAX_GUIDANCE_SCALE = 100.0
_DEFAULT_STRENGTH = 0.8
_NUM_SEEDS = 1 << 64
"""Seeds that a client may send: 0 to this minus 1."""
_NUM_RANDOM_SEEDS = 1 << 32
"""Seeds among which one is drawn if the client sends none."""


@dataclass(frozen=True, slots=True)
class PreprocessedRequest:
    """A request whose prompt and image are encoded."""

    size: Size
    plan: Plan
    guided_prompt: GuidedPrompt
    vae: Vae
    seeds: tuple[int, ...]
    previews: dict[int, int]
    encoded_image: EncodedImage | None
    init_image: InitImage | None
    output_format: str
    quality: int | None

    def make_job(
        self,
        on_progress: Callable[[float], None],
        on_finished: Callable[[list[BatchRow]], None],
        on_failed: Callable[[Exception], None],
        on_preview: Callable[[BatchRow, int, Latent], None],
    ) -> DenoisingJob:
        """Return the job for the denoiser, with its callbacks."""
        width, height = self.size
        return DenoisingJob(
            shape=(self.vae.channels, height // self.vae.factor, width // self.vae.factor),
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
        )

    def encode_image_file(self, pixels: Pixels) -> bytes:
        """Encode a finished image as a file, with the unmasked part taken from the client's image."""
        return encode_image(
            self.init_image.composite(pixels) if self.init_image else pixels, self.output_format, self.quality
        )


class Preprocessor:
    """Validates requests against a model's options, and calls its encoders. May be used from any thread."""

    def __init__(
        self,
        family: Family,
        scheduler: Scheduler,
        config: PipelineConfig,
        options: Options,
        components: Components,
    ) -> None:
        self._family = family
        self._scheduler = scheduler
        self._config = config
        self._options = options
        self._components = components

    def preprocess(self, request: Request, is_cancelled: Callable[[], bool]) -> PreprocessedRequest:
        """Validate and encode a request.

        Raises `GenerationError`, naming the input at fault, and `Cancelled` once `is_cancelled` returns true.
        """
        self._check(request)
        scale = self._guidance(request)
        steps = self._options.default_steps if request.steps is None else request.steps
        init_image = self._load_init_image(request)
        size = init_image.size if init_image else self._size(request, self._options.default_size)
        masked = init_image is not None and init_image.mask is not None
        strength = 1.0
        if init_image:
            strength = (1.0 if masked else _DEFAULT_STRENGTH) if request.strength is None else request.strength
        plan = self._scheduler.plan(steps, strength, size)
        _raise_if_cancelled(is_cancelled)
        guided_prompt = self._family.encode_prompt(request.prompt, request.negative_prompt, scale, size)
        _raise_if_cancelled(is_cancelled)
        encoded_image = None
        if init_image:
            encoded_image = self._encode_init_image(init_image, from_noise=masked and strength == 1)
        first_seed = secrets.randbelow(_NUM_RANDOM_SEEDS) if request.seed is None else request.seed
        return PreprocessedRequest(
            size=size,
            plan=plan,
            guided_prompt=guided_prompt,
            vae=self._config.vae,
            seeds=tuple((first_seed + number) % _NUM_SEEDS for number in range(request.num_images)),
            previews=_preview_schedule(len(plan.timesteps), request.partial_images),
            encoded_image=encoded_image,
            init_image=init_image,
            output_format=request.output_format,
            quality=request.quality,
        )

    def _check(self, request: Request) -> None:
        _check_range(request.num_images, 1, self._options.max_images, "num_images")
        if request.steps is not None:
            _check_range(request.steps, 1, self._options.max_steps, "steps")
        _check_range(request.partial_images, 0, MAX_PREVIEWS, "partial_images")
        if request.quality is not None:
            _check_range(request.quality, 0, 100, "quality")
        if request.output_format not in OUTPUT_FORMATS:
            raise InvalidValue(
                f"This must be one of {', '.join(OUTPUT_FORMATS)}, not {request.output_format[:50]!r}.", "output_format"
            )
        if request.seed is not None:
            _check_range(request.seed, 0, _NUM_SEEDS - 1, "seed")
        if request.images:
            if request.strength is not None and not 0 < request.strength <= 1:
                raise InvalidValue(f"This must be above 0 and at most 1, not {request.strength}.", "strength")
        elif request.strength is not None:
            raise InvalidValue("This requires an image, and none was sent.", "strength")
        elif request.mask is not None:
            raise InvalidValue("This requires an image, and none was sent.", "mask")

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

    def _load_init_image(self, request: Request) -> InitImage | None:
        if not request.images:
            return None
        if len(request.images) > 1:
            raise UnsupportedOption(f"This model edits one image, and {len(request.images)} were sent.", "image")
        if self._config.vae_encoder is None:
            raise UnsupportedOption("This model takes no images.", "image")
        return load_init_image(
            request.images[0],
            request.mask,
            lambda size: self._size(request, self._options.nearest_size(size)),
        )

    def _encode_init_image(self, init_image: InitImage, *, from_noise: bool) -> EncodedImage:
        assert self._config.vae_encoder is not None
        inputs = {"image": init_image.to_tensor()[None]}
        found = self._components.run(self._config.vae_encoder, inputs, ["moments"])
        mask = init_image.latent_mask(self._config.vae.factor)
        return EncodedImage(found["moments"][0].astype(np.float32, copy=False), mask, from_noise)


def _preview_schedule(runs: int, count: int) -> dict[int, int]:
    """Return the number of each preview by the number of runs after which it is due.

    `count` previews are spread evenly over the runs; there are fewer if there are few runs.
    """
    due = sorted({round(runs * number / (count + 1)) for number in range(1, count + 1)} - {0, runs})
    return {run: number for number, run in enumerate(due)}


def _check_range(value: int, low: int, high: int, name: str) -> None:
    if not low <= value <= high:
        raise InvalidValue(f"This must be from {low} to {high}, not {value}.", name)


def _raise_if_cancelled(is_cancelled: Callable[[], bool]) -> None:
    if is_cancelled():
        raise Cancelled("The request was cancelled.")
