"""From what a request asks for to what the loop needs."""

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
_MAX_GUIDANCE_SCALE = 100.0
_DEFAULT_STRENGTH = 0.8
_NUM_SEEDS = 1 << 64
_NUM_RANDOM_SEEDS = 1 << 32


@dataclass(frozen=True, slots=True)
class PreprocessedRequest:
    """A request whose texts and picture are encoded."""

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

    def job(
        self,
        stepped: Callable[[float], None],
        finished: Callable[[list[BatchRow]], None],
        failed: Callable[[Exception], None],
        previewed: Callable[[BatchRow, int, Latent], None],
    ) -> DenoisingJob:
        """The job for the loop, with what it is to call."""
        width, height = self.size
        return DenoisingJob(
            shape=(self.vae.channels, height // self.vae.factor, width // self.vae.factor),
            plan=self.plan,
            guided_prompt=self.guided_prompt,
            vae=self.vae,
            seeds=self.seeds,
            on_progress=stepped,
            on_finished=finished,
            on_failed=failed,
            on_preview=previewed,
            previews=self.previews,
            encoded_image=self.encoded_image,
        )

    def encode_image_file(self, pixels: Pixels) -> bytes:
        """The file of a decoded image; what was not to change is taken from the picture that came."""
        return encode_image(
            self.init_image.composite(pixels) if self.init_image else pixels, self.output_format, self.quality
        )


class Preprocessor:
    """Checks requests against one model's options, and calls its encoders. May be used from any thread."""

    def __init__(
        self,
        family: Family,
        scheduler: Scheduler,
        description: PipelineConfig,
        options: Options,
        components: Components,
    ) -> None:
        self._family = family
        self._scheduler = scheduler
        self._description = description
        self._options = options
        self._components = components

    def preprocess(self, request: Request, is_cancelled: Callable[[], bool]) -> PreprocessedRequest:
        """Raise `GenerationError`, naming the input at fault; `Cancelled` where `is_cancelled` says so."""
        self._check(request)
        scale = self._guidance(request)
        steps = self._options.default_steps if request.steps is None else request.steps
        canvas = self._load_init_image(request)
        size = canvas.size if canvas else self._size(request, self._options.default_size)
        masked = canvas is not None and canvas.mask is not None
        strength = 1.0
        if canvas:
            strength = (1.0 if masked else _DEFAULT_STRENGTH) if request.strength is None else request.strength
        plan = self._scheduler.plan(steps, strength, size)
        _raise_if_cancelled(is_cancelled)
        guided = self._family.encode_prompt(request.prompt, request.negative_prompt, scale, size)
        _raise_if_cancelled(is_cancelled)
        source = self._encode_init_image(canvas, anew=masked and strength == 1) if canvas else None
        first = secrets.randbelow(_NUM_RANDOM_SEEDS) if request.seed is None else request.seed
        return PreprocessedRequest(
            size=size,
            plan=plan,
            guided_prompt=guided,
            vae=self._description.vae,
            seeds=tuple((first + number) % _NUM_SEEDS for number in range(request.num_images)),
            previews=_preview_schedule(len(plan.timesteps), request.partial_images),
            encoded_image=source,
            init_image=canvas,
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
            raise InvalidValue("This belongs to a picture, and none came.", "strength")
        elif request.mask is not None:
            raise InvalidValue("This belongs to a picture, and none came.", "mask")

    def _guidance(self, request: Request) -> float:
        scale = request.guidance_scale
        if scale is None:
            return self._options.default_guidance
        if not math.isfinite(scale) or not 0 <= scale <= _MAX_GUIDANCE_SCALE:
            raise InvalidValue(f"This must be from 0 to {_MAX_GUIDANCE_SCALE:.0f}, not {scale}.", "guidance_scale")
        if scale > 1 and self._description.guidance == "none":
            raise UnsupportedOption("This model cannot be told how closely to follow the prompt.", "guidance_scale")
        return scale

    def _size(self, request: Request, usual: Size) -> Size:
        size = (
            usual[0] if request.width is None else request.width,
            usual[1] if request.height is None else request.height,
        )
        if size != usual:
            self._options.check_size(size)
        return size

    def _load_init_image(self, request: Request) -> InitImage | None:
        if not request.images:
            return None
        if len(request.images) > 1:
            raise UnsupportedOption(f"This model edits one picture, and {len(request.images)} came.", "image")
        if self._description.vae_encoder is None:
            raise UnsupportedOption("This model cannot read pictures.", "image")
        return load_init_image(
            request.images[0],
            request.mask,
            lambda size: self._size(request, self._options.nearest_size(size)),
        )

    def _encode_init_image(self, canvas: InitImage, *, anew: bool) -> EncodedImage:
        assert self._description.vae_encoder is not None
        inputs = {"image": canvas.to_tensor()[None]}
        found = self._components.run(self._description.vae_encoder, inputs, ["moments"])
        cells = canvas.latent_mask(self._description.vae.factor)
        return EncodedImage(found["moments"][0].astype(np.float32, copy=False), cells, anew)


def _preview_schedule(runs: int, count: int) -> dict[int, int]:
    """After how many runs which preview is due: as evenly apart as they can be, fewer where there are few runs."""
    due = sorted({round(runs * number / (count + 1)) for number in range(1, count + 1)} - {0, runs})
    return {run: number for number, run in enumerate(due)}


def _check_range(value: int, least: int, most: int, name: str) -> None:
    if not least <= value <= most:
        raise InvalidValue(f"This must be from {least} to {most}, not {value}.", name)


def _raise_if_cancelled(is_cancelled: Callable[[], bool]) -> None:
    if is_cancelled():
        raise Cancelled("The request was cancelled.")
