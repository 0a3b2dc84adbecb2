"""Requests to swap faces: checks, the work in a thread, and the responses."""

from dataclasses import dataclass
from functools import partial
from typing import Protocol

from backends.face_swap.options import Options
from backends.face_swap.stats import Stats
from backends.face_swap.swapping import FaceSwapper
from backends.serving.active_request import ActiveRequest, ResponseSender
from backends.serving.errors import Cancelled, InvalidValue, Overloaded
from backends.serving.images import OUTPUT_FORMATS, DecodedImage, check_encodable, encode_image, read_image
from backends.serving.request_frontend import RequestFrontend


@dataclass(frozen=True, slots=True)
class Request:
    """The tensors of one request, unchecked; None if not sent. `source` and `target`, encoded images, are required."""

    source: bytes | None
    target: bytes | None
    output_format: str | None = None
    quality: int | None = None


class FaceSwapSender(ResponseSender, Protocol):
    """Sends the responses of one request."""

    def send_progress(self, fraction: float) -> None:
        """Send the part of the work that is done, 0 to 1."""

    def send_image(self, data: bytes, size: tuple[int, int], num_faces: int) -> None:
        """Send the image, an encoded file, its width and height, and the number of faces, as the last response."""


class FaceSwapFrontend(RequestFrontend[Request, FaceSwapSender, "ActiveFaceSwap"]):
    """Works on as many requests side by side as it has threads; more wait."""

    def __init__(self, swapper: FaceSwapper, options: Options) -> None:
        self.stats = Stats()
        super().__init__(self.stats)
        self.swapper = swapper
        self.options = options
        self.pool = self.new_pool(options.num_threads, "face-swap")

    def make_active(self, key: int, request: Request, sender: FaceSwapSender) -> "ActiveFaceSwap":
        """Return the active request that `key` identifies; it has not started."""
        return ActiveFaceSwap(key, request, sender, self)

    def queue_error(self, active: "ActiveFaceSwap") -> Overloaded | None:
        """Return `Overloaded` while `max_waiting` requests wait."""
        if self.active_size >= self.options.num_threads + self.options.max_waiting:
            return Overloaded(f"{self.active_size} pictures are worked on or wait already; try again later.")
        return None

    def count(self, num_faces: int) -> None:
        """Count a picture and its faces."""
        with self._lock:
            self.stats.pictures += 1
            self.stats.faces += num_faces


class ActiveFaceSwap(ActiveRequest[FaceSwapFrontend, FaceSwapSender]):
    """One request from its admission to its last response."""

    def __init__(self, key: int, request: Request, sender: FaceSwapSender, frontend: FaceSwapFrontend) -> None:
        super().__init__(key, sender, frontend)
        self._request: Request | None = request

    def start(self) -> None:
        """Have a thread of the frontend do all the work."""
        self.run_in_pool(self._frontend.pool, self._swap)

    def release(self) -> None:
        """Drop the pictures; the thread notices at the next step."""
        self._request = None

    def _swap(self) -> None:
        if (request := self._request) is None:
            return
        output_format = request.output_format or OUTPUT_FORMATS[0]
        if output_format not in OUTPUT_FORMATS:
            raise InvalidValue(
                f"This must be one of {', '.join(OUTPUT_FORMATS)}, not {output_format[:50]!r}.", "output_format"
            )
        if request.quality is not None and not 0 <= request.quality <= 100:
            raise InvalidValue(f"This must be from 0 to 100, not {request.quality}.", "quality")
        source = self._read(request.source, "source")
        target = self._read(request.target, "target")
        check_encodable(target.size, output_format)
        pixels, num_faces = self._frontend.swapper.swap(
            source.pixels, target.pixels, self._frontend.options.max_faces, self._send_progress, self._check
        )
        self._check()
        data = encode_image(pixels, output_format, request.quality, target.alpha)
        self._frontend.count(num_faces)
        self.finish(partial(self._sender.send_image, data, target.size, num_faces))

    def _read(self, data: bytes | None, name: str) -> DecodedImage:
        if data is None:
            raise InvalidValue(f"There must be a picture '{name}'.", name)
        self._check()
        image = read_image(data, name)
        limit, (width, height) = self._frontend.options.max_pixels, image.size
        if width * height > limit:
            raise InvalidValue(
                f"The picture '{name}' has {width} x {height} pixels; this model takes at most {limit}.", name
            )
        return image

    def _send_progress(self, fraction: float) -> None:
        self.post(partial(self._sender.send_progress, fraction))

    def _check(self) -> None:
        if self.is_abandoned():
            raise Cancelled("The request was cancelled.")
