"""One request for images from its admission to its last response."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from backends.diffusion.denoising_job import BatchRow, DenoisingJob
from backends.diffusion.images import Pixels
from backends.diffusion.latent_decoder import DecodeTask
from backends.diffusion.preprocessor import PreprocessedRequest
from backends.diffusion.request import Request
from backends.diffusion.schedulers import Latent
from backends.serving.active_request import ActiveRequest, ResponseSender
from backends.serving.errors import EngineFailed, GenerationError

if TYPE_CHECKING:
    from backends.diffusion.request_frontend import DiffusionFrontend

_PROGRESS_INTERVAL_SECONDS = 0.05
"""Least time between two reports of progress, in seconds: a small model takes hundreds of steps per second, and each
report costs a third of a millisecond."""


class ImageSender(ResponseSender, Protocol):
    """Sends the responses of one request."""

    def send_progress(self, fraction: float) -> None:
        """Send the finished share of the work, 0 to 1."""

    def send_preview(self, image: bytes, index: int, number: int) -> None:
        """Send the preview `number`, from 0 on, of the image `index` as an encoded file."""

    def send_image(self, image: bytes, seed: int, index: int, *, final: bool) -> None:
        """Send the image `index` as an encoded file; `final` marks the last response."""


class ActiveImageRequest(ActiveRequest["DiffusionFrontend", ImageSender]):
    """One request from its admission to its last response: progress, previews, and its images."""

    def __init__(self, key: int, request: Request, sender: ImageSender, frontend: "DiffusionFrontend") -> None:
        """The `size` of a request is how many images it asks for."""
        super().__init__(key, sender, frontend, max(1, request.num_images))
        self.nbytes = request.nbytes
        """Bytes of the texts and images that wait for preprocessing; 0 afterwards."""
        self._request: Request | None = request
        self._job: DenoisingJob | None = None
        self._prepared: PreprocessedRequest
        self._num_pending = 0
        """Images that have not been sent; used by the sender thread alone."""
        # The denoiser's thread writes these; the sender thread clears `_report_pending`.
        self._progress = self._last_report_time = 0.0
        self._report_pending = False

    def start(self) -> None:
        """Have the inputs preprocessed."""
        if request := self._request:
            pool = self._frontend.image_pool if request.images else self._frontend.prompt_pool
            self.run_in_pool(pool, self._prepare)

    def release(self) -> None:
        """Drop the inputs and cancel the job."""
        self._request = None
        if self._job:
            self._frontend.denoiser.cancel(self._job)

    def _prepare(self) -> None:
        # An active request lives until its last image is sent; the image that came with it may have many megabytes.
        request, self._request = self._request, None
        try:
            if request is not None:
                self._submit(request)
        finally:
            self.nbytes = 0

    def _submit(self, request: Request) -> None:
        prepared = self._frontend.preprocessor.preprocess(request, self.is_abandoned)
        self._prepared, self._num_pending = prepared, len(prepared.seeds)
        self._job = prepared.make_job(self._on_progress, self._on_finished, self._on_failed, self._on_preview)
        if not self.stopped:
            self._frontend.denoiser.submit(self._job)

    def _on_failed(self, error: Exception) -> None:
        if not isinstance(error, GenerationError):
            error = EngineFailed(f"The image could not be generated: {str(error)[:500]}")
        self.fail(error)

    def _on_progress(self, progress: float) -> None:
        """Report progress, unless a report was posted lately or is pending: a pending one sends the latest value."""
        self._progress = progress
        now = time.monotonic()
        if not self._report_pending and (now - self._last_report_time >= _PROGRESS_INTERVAL_SECONDS or progress >= 1):
            self._last_report_time, self._report_pending = now, True
            self.post(self._send_progress)

    def _send_progress(self) -> None:
        self._report_pending = False
        self._sender.send_progress(self._progress)

    def _on_preview(self, row: BatchRow, number: int, latent: Latent) -> None:
        def on_decoded(pixels: Pixels) -> None:
            self.post(lambda: self._send_preview(row.index, number, pixels))

        self._frontend.decoder.submit([DecodeTask(row.job, latent, on_decoded)])

    def _on_finished(self, rows: list[BatchRow]) -> None:
        self._frontend.decoder.submit([DecodeTask(row.job, row.sample, self._decode_callback(row)) for row in rows])

    def _decode_callback(self, row: BatchRow) -> Callable[[Pixels], None]:
        def on_decoded(pixels: Pixels) -> None:
            self._frontend.count_image()
            self.post(lambda: self._send_image(row, pixels))

        return on_decoded

    def _send_preview(self, index: int, number: int, pixels: Pixels) -> None:
        self._sender.send_preview(self._prepared.encode_image_file(pixels), index, number)

    def _send_image(self, row: BatchRow, pixels: Pixels) -> None:
        try:
            file = self._prepared.encode_image_file(pixels)
        except Exception as error:
            self._on_failed(error)
            return
        self._num_pending -= 1
        if self._num_pending:
            self._sender.send_image(file, row.seed, row.index, final=False)
        elif self.stop():  # otherwise an error has been posted, and is the last response
            self.send_last(lambda: self._sender.send_image(file, row.seed, row.index, final=True))
