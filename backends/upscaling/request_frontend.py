"""Requests to upscale a picture: checks, the picture's way through decoder, network and encoder, and the responses."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from backends.serving.active_request import ActiveRequest, ResponseSender
from backends.serving.errors import (
    Cancelled,
    EngineFailed,
    GenerationError,
    InvalidValue,
    Overloaded,
    UnsupportedOption,
)
from backends.serving.images import OUTPUT_FORMATS, DecodedImage, Pixels, check_encodable, encode_image, read_image
from backends.serving.request_frontend import RequestFrontend
from backends.upscaling.options import Options
from backends.upscaling.scheduler import UpscaleJob, UpscaleScheduler
from backends.upscaling.tiling import split

_SMALL_FILE_BYTES = 1 << 18
"""Files up to this size have threads of their own, so that they do not wait for large pictures."""
_SMALL_FILE_THREADS, _LARGE_FILE_THREADS = 4, 2
"""Requests that are decoded at the same time; each needs the memory of its picture and of the result."""
_MAX_WAITING_BYTES = 256 << 20
"""Bytes of files of requests that are not answered yet."""
_PROGRESS_STEPS = 100
"""Most reports of progress of a request: each costs a third of a millisecond."""
_FILLED_PIXELS = 8
"""Distance in pixels over which colours reach into transparent parts."""

Alpha = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Request:
    """The tensors of one request, unchecked; None if not sent. `image` is required."""

    image: bytes | None
    scale: int | None = None
    output_format: str = "png"
    quality: int | None = None


class UpscalingSender(ResponseSender, Protocol):
    """Sends the responses of one request."""

    def send_progress(self, fraction: float) -> None:
        """Send the finished share of the work, 0 to 1."""

    def send(self, image: bytes, width: int, height: int) -> None:
        """Send the encoded picture and its size in pixels as the last response."""


class UpscalingFrontend(RequestFrontend[Request, UpscalingSender, "ActiveUpscale"]):
    """Checks requests and hands their pictures to the scheduler."""

    def __init__(self, scheduler: UpscaleScheduler, options: Options) -> None:
        """Own the scheduler: `close` closes it."""
        super().__init__(scheduler.stats)
        self.scheduler = scheduler
        self.options = options
        self._small_pool = self.new_pool(_SMALL_FILE_THREADS, "upscaling-small-files")
        self._large_pool = self.new_pool(_LARGE_FILE_THREADS, "upscaling-large-files")

    def make_active(self, key: int, request: Request, sender: UpscalingSender) -> "ActiveUpscale":
        """Return the active request that `key` identifies; it has not started."""
        return ActiveUpscale(key, request, sender, self)

    def queue_error(self, active: "ActiveUpscale") -> GenerationError | None:
        """Return `Overloaded` while more than `max_waiting` requests, or too many bytes of files, are unanswered."""
        if len(self._active_requests) > self.options.max_waiting:
            return Overloaded(f"{len(self._active_requests)} pictures are upscaled or wait already; try again later.")
        if self._active_requests and self.active_size + active.size > _MAX_WAITING_BYTES:
            return Overloaded(f"{self.active_size / 1e6:.0f} MB of pictures wait already; try again later.")
        return None

    def close(self) -> None:
        """Fail every active request, and end every thread. Calls after the first do nothing."""
        self.scheduler.close()  # before the threads that wait for it
        super().close()

    def pool_for(self, request: Request) -> ThreadPoolExecutor:
        """Return the threads that work on a request."""
        return self._small_pool if len(request.image or b"") <= _SMALL_FILE_BYTES else self._large_pool

    def check(self, request: Request) -> tuple[bytes, int]:
        """Return the file and the scale of a request. Raises `InvalidValue` or `UnsupportedOption`."""
        scales = self.options.scales
        scale = scales[0] if request.scale is None else request.scale
        if not request.image:
            raise InvalidValue("There must be a picture.", "image")
        if scale not in scales:
            raise UnsupportedOption(f"This model upscales by {' or '.join(map(str, scales))}, not by {scale}.", "scale")
        if request.output_format not in OUTPUT_FORMATS:
            raise InvalidValue(f"This must be one of {', '.join(OUTPUT_FORMATS)}.", "output_format")
        if request.quality is not None and not 0 <= request.quality <= 100:
            raise InvalidValue(f"This must be from 0 to 100, not {request.quality}.", "quality")
        return request.image, scale

    def check_size(self, image: DecodedImage, scale: int) -> None:
        """Raise `InvalidValue` for a picture that has, or that would get, too many pixels."""
        width, height = image.size
        limit = min(self.options.max_pixels, self.options.max_output_pixels // scale**2)
        if width * height > limit:
            raise InvalidValue(
                f"The picture has {width} x {height} pixels; this model upscales at most {limit} by {scale}.", "image"
            )


class ActiveUpscale(ActiveRequest[UpscalingFrontend, UpscalingSender]):
    """One request from its admission to its last response."""

    def __init__(self, key: int, request: Request, sender: UpscalingSender, frontend: UpscalingFrontend) -> None:
        """The `size` of a request is that of its file in bytes."""
        super().__init__(key, sender, frontend, len(request.image or b""))
        self._request: Request | None = request
        self._job: UpscaleJob | None = None
        self._reported = 0

    def start(self) -> None:
        """Have the picture upscaled in a thread of the frontend."""
        assert self._request is not None
        self.run_in_pool(self._frontend.pool_for(self._request), self._upscale)

    def release(self) -> None:
        """Drop the file, and take the picture out of the queue."""
        self._request = None
        if self._job:
            self._frontend.scheduler.cancel(self._job)

    def _upscale(self) -> None:
        request, self._request = self._request, None
        if request is None:
            return
        file, scale = self._frontend.check(request)
        image = read_image(file)
        self._frontend.check_size(image, scale)
        check_encodable((scale * image.size[0], scale * image.size[1]), request.output_format)
        pixels, alpha = split_alpha(image)
        options = self._frontend.options
        size = image.size
        del file, image  # they would stay until the end
        tiles = split(*size, options.tile, options.overlap, options.feather)
        job = self._job = UpscaleJob(pixels, scale, tiles, self._on_progress)
        self._frontend.scheduler.submit(job)
        if self.stopped:  # meanwhile, and `release` has not seen the job
            self.release()
        try:
            upscaled = job.wait()
        except GenerationError:
            raise
        except Exception as error:
            raise EngineFailed(f"The picture could not be upscaled: {str(error)[:500]}") from None
        if self.is_abandoned():
            raise Cancelled("The request was cancelled.")
        height, width = upscaled.shape[:2]
        large_alpha = None if alpha is None else resize_alpha(alpha, (width, height))
        data = encode_image(upscaled, request.output_format, request.quality, large_alpha)
        self._job = None
        self.finish(partial(self._sender.send, data, width, height))

    def _on_progress(self, fraction: float) -> None:
        step = int(fraction * _PROGRESS_STEPS)
        if step > self._reported:
            self._reported = step
            self.post(partial(self._sender.send_progress, fraction))


def split_alpha(image: DecodedImage) -> tuple[Pixels, Alpha | None]:
    """Return the colours of a picture, and the opacity of each pixel, uint8[height, width]; None if all are opaque.

    The colour of a transparent pixel in a file is arbitrary, and the network would spread it. It becomes that of the
    pixels around it.
    """
    alpha = image.alpha
    if alpha is None:
        return image.pixels, None
    rgba = Image.fromarray(np.dstack([image.pixels, alpha]), "RGBA")
    # Pillow blurs colours that are weighted by opacity, and divides by the blurred opacity when it converts back.
    around = rgba.convert("RGBa").filter(ImageFilter.BoxBlur(_FILLED_PIXELS)).convert("RGBA")
    colours = np.where(alpha[..., None] == 0, np.asarray(around)[..., :3], image.pixels)
    return np.ascontiguousarray(colours), alpha


def resize_alpha(alpha: Alpha, size: tuple[int, int]) -> Alpha:
    """Return the opacity in another width and height, by bicubic interpolation."""
    return np.asarray(Image.fromarray(alpha).resize(size, Image.Resampling.BICUBIC))
