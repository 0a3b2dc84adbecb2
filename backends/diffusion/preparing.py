"""From what a request asks for to what the loop needs."""

import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from backends.diffusion.canvas import Canvas, open_canvas
from backends.diffusion.components import Components
from backends.diffusion.description import Description, Vae
from backends.diffusion.families import Family, Guided
from backends.diffusion.options import Options, Size
from backends.diffusion.pictures import FORMATS, Pixels, encode
from backends.diffusion.request import Request
from backends.diffusion.rows import Job, Row, Source
from backends.diffusion.schedulers import Latent, Plan, Scheduler
from backends.serving.errors import Cancelled, InvalidValue, UnsupportedOption

MOST_PREVIEWS = 3
_MOST_GUIDANCE = 100.0
_STRENGTH = 0.8
_SEEDS = 1 << 64
_DRAWN_SEEDS = 1 << 32


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request whose texts and picture are encoded."""

    size: Size
    plan: Plan
    guided: Guided
    vae: Vae
    seeds: tuple[int, ...]
    previews: dict[int, int]
    source: Source | None
    canvas: Canvas | None
    output_format: str
    quality: int | None

    def job(
        self,
        stepped: Callable[[float], None],
        finished: Callable[[list[Row]], None],
        failed: Callable[[Exception], None],
        previewed: Callable[[Row, int, Latent], None],
    ) -> Job:
        """The job for the loop, with what it is to call."""
        width, height = self.size
        return Job(
            shape=(self.vae.channels, height // self.vae.factor, width // self.vae.factor),
            plan=self.plan,
            guided=self.guided,
            vae=self.vae,
            seeds=self.seeds,
            stepped=stepped,
            finished=finished,
            failed=failed,
            previewed=previewed,
            previews=self.previews,
            source=self.source,
        )

    def encode(self, pixels: Pixels) -> bytes:
        """The file of a decoded image; what was not to change is taken from the picture that came."""
        return encode(self.canvas.finish(pixels) if self.canvas else pixels, self.output_format, self.quality)


class Preparing:
    """Checks requests against one model's options, and calls its encoders. May be used from any thread."""

    def __init__(
        self, family: Family, scheduler: Scheduler, description: Description, options: Options, components: Components
    ) -> None:
        self._family = family
        self._scheduler = scheduler
        self._description = description
        self._options = options
        self._components = components

    def prepare(self, request: Request, is_cancelled: Callable[[], bool]) -> Prepared:
        """Raise `GenerationError`, naming the input at fault; `Cancelled` where `is_cancelled` says so."""
        self._check(request)
        scale = self._guidance(request)
        steps = self._options.default_steps if request.steps is None else request.steps
        canvas = self._canvas(request)
        size = canvas.size if canvas else self._size(request, self._options.default_size)
        masked = canvas is not None and canvas.area is not None
        strength = 1.0
        if canvas:
            strength = (1.0 if masked else _STRENGTH) if request.strength is None else request.strength
        plan = self._scheduler.plan(steps, strength, size)
        _stop_if(is_cancelled)
        guided = self._family.guide(request.prompt, request.negative_prompt, scale, size)
        _stop_if(is_cancelled)
        source = self._source(canvas, anew=masked and strength == 1) if canvas else None
        first = secrets.randbelow(_DRAWN_SEEDS) if request.seed is None else request.seed
        return Prepared(
            size=size,
            plan=plan,
            guided=guided,
            vae=self._description.vae,
            seeds=tuple((first + number) % _SEEDS for number in range(request.num_images)),
            previews=_previews(len(plan.timesteps), request.partial_images),
            source=source,
            canvas=canvas,
            output_format=request.output_format,
            quality=request.quality,
        )

    def _check(self, request: Request) -> None:
        _within(request.num_images, 1, self._options.max_images, "num_images")
        if request.steps is not None:
            _within(request.steps, 1, self._options.max_steps, "steps")
        _within(request.partial_images, 0, MOST_PREVIEWS, "partial_images")
        if request.quality is not None:
            _within(request.quality, 0, 100, "quality")
        if request.output_format not in FORMATS:
            raise InvalidValue(
                f"This must be one of {', '.join(FORMATS)}, not {request.output_format[:50]!r}.", "output_format"
            )
        if request.seed is not None:
            _within(request.seed, 0, _SEEDS - 1, "seed")
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
        if not math.isfinite(scale) or not 0 <= scale <= _MOST_GUIDANCE:
            raise InvalidValue(f"This must be from 0 to {_MOST_GUIDANCE:.0f}, not {scale}.", "guidance_scale")
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

    def _canvas(self, request: Request) -> Canvas | None:
        if not request.images:
            return None
        if len(request.images) > 1:
            raise UnsupportedOption(f"This model edits one picture, and {len(request.images)} came.", "image")
        if self._description.vae_encoder is None:
            raise UnsupportedOption("This model cannot read pictures.", "image")
        return open_canvas(
            request.images[0],
            request.mask,
            lambda size: self._size(request, self._options.nearest_size(size)),
        )

    def _source(self, canvas: Canvas, *, anew: bool) -> Source:
        assert self._description.vae_encoder is not None
        inputs = {"image": canvas.image()[None]}
        found = self._components.run(self._description.vae_encoder, inputs, ["moments"])
        cells = canvas.cells(self._description.vae.factor)
        return Source(found["moments"][0].astype(np.float32, copy=False), cells, anew)


def _previews(runs: int, count: int) -> dict[int, int]:
    """After how many runs which preview is due: as evenly apart as they can be, fewer where there are few runs."""
    due = sorted({round(runs * number / (count + 1)) for number in range(1, count + 1)} - {0, runs})
    return {run: number for number, run in enumerate(due)}


def _within(value: int, least: int, most: int, name: str) -> None:
    if not least <= value <= most:
        raise InvalidValue(f"This must be from {least} to {most}, not {value}.", name)


def _stop_if(is_cancelled: Callable[[], bool]) -> None:
    if is_cancelled():
        raise Cancelled("The request was cancelled.")
