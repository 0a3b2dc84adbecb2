"""One request from its arrival to its last response."""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from backends.diffusion.denoising_job import BatchRow, DenoisingJob
from backends.diffusion.images import Pixels
from backends.diffusion.latent_decoder import DecodeTask
from backends.diffusion.preprocessor import PreprocessedRequest
from backends.diffusion.request import Request
from backends.diffusion.schedulers import Latent
from backends.serving.errors import Cancelled, EngineFailed, GenerationError

_PROGRESS_INTERVAL_SECONDS = 0.05
"""Seconds between two reports of progress: a small model takes hundreds of steps a second, and each report costs
a third of a millisecond."""


class ResponseSender(Protocol):
    """The way back to one client, who may go away."""

    def is_cancelled(self) -> bool:
        """Whether the client has cancelled; takes a round trip to the server."""

    def send_progress(self, fraction: float) -> None:
        """Send how much of the work is done, 0 to 1."""

    def send_preview(self, image: bytes, index: int, number: int) -> None:
        """Send an encoded preview of an image, the `number`th of it, from 0 on."""

    def send_image(self, image: bytes, seed: int, index: int, *, final: bool) -> None:
        """Send an encoded image."""

    def fail(self, error: GenerationError) -> None:
        """Send an error as the last response."""


class Frontend(Protocol):
    """What an exchange needs of the desk, which documents it."""

    def preprocess(self, request: Request, is_cancelled: Callable[[], bool]) -> PreprocessedRequest: ...  # noqa: D102
    def is_closed(self) -> bool: ...  # noqa: D102
    def submit(self, job: DenoisingJob) -> None: ...  # noqa: D102
    def cancel(self, job: DenoisingJob) -> None: ...  # noqa: D102
    def decode(self, tasks: list[DecodeTask]) -> None: ...  # noqa: D102
    def count_cancelled(self) -> None: ...  # noqa: D102
    def count_image(self) -> None: ...  # noqa: D102
    def post(self, key: int, errand: Callable[[], None]) -> None: ...  # noqa: D102
    def forget(self, key: int) -> None: ...  # noqa: D102


class ActiveRequest:
    """Its callbacks come from many threads; responses are sent by one, in the order in which they were posted."""

    def __init__(self, key: int, request: Request, client: ResponseSender, office: Frontend) -> None:
        self.key = key
        self.images = max(1, request.num_images)
        self.nbytes = request.nbytes
        """How much memory the request takes, until it is prepared."""
        self._request: Request | None = request
        self._client = client
        self._frontend = office
        self._lock = threading.Lock()
        self._ended = False
        self._job: DenoisingJob | None = None
        self._prepared: PreprocessedRequest
        # These belong to the sender's thread.
        self._final_sent = False
        self._num_pending = 0
        # The loop's thread writes these; the sender's says that it has told.
        self._progress = self._last_report_time = 0.0
        self._report_pending = False

    def begin(self) -> None:
        """Prepare and submit; runs in a thread for that."""
        # The exchange lives until the last image; the picture that came may have many megabytes.
        request, self._request = self._request, None
        try:
            if not self._ended and request is not None:
                self._begin(request)
        finally:
            self.nbytes = 0

    def _begin(self, request: Request) -> None:
        try:
            prepared = self._frontend.preprocess(request, lambda: self._ended)
            self._prepared, self._num_pending = prepared, len(prepared.seeds)
            job = prepared.job(self._on_progress, self._on_finished, self._on_failed, self._on_preview)
            self._job = job
            if not self._ended:
                self._frontend.submit(job)
            if self._ended:  # the client went away meanwhile
                self._frontend.cancel(job)
        except GenerationError as error:
            if not (isinstance(error, Cancelled) and self._frontend.is_closed()):
                self.fail(error)
        except Exception as error:  # nobody else would answer
            self.fail(EngineFailed(f"The request could not be prepared: {str(error)[:500]}"))

    def cancel(self) -> None:
        """The client has gone; called by the watching thread."""
        self._frontend.count_cancelled()
        self.fail(Cancelled("The request was cancelled."))

    def fail(self, error: GenerationError) -> None:
        """End with an error, unless it has ended."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
        self._request = None
        if job := self._job:
            self._frontend.cancel(job)
        self._frontend.post(self.key, lambda: self._send_error(error))

    def _send_error(self, error: GenerationError) -> None:
        if not self._final_sent:
            self._final_sent = True
            self._frontend.forget(self.key)
            self._client.fail(error)

    def _on_failed(self, error: Exception) -> None:
        if not isinstance(error, GenerationError):
            error = EngineFailed(f"The image could not be made: {str(error)[:500]}")
        self.fail(error)

    def _on_progress(self, share: float) -> None:
        """Report progress, unless a report left a moment ago or is about to leave: that one says the latest."""
        self._progress = share
        now = time.monotonic()
        if not self._report_pending and (now - self._last_report_time >= _PROGRESS_INTERVAL_SECONDS or share >= 1):
            self._last_report_time, self._report_pending = now, True
            self._frontend.post(self.key, self._send_progress)

    def _send_progress(self) -> None:
        self._report_pending = False
        if not self._final_sent:
            self._client.send_progress(self._progress)

    def _on_preview(self, row: BatchRow, number: int, latent: Latent) -> None:
        def decoded(pixels: Pixels) -> None:
            self._frontend.post(self.key, lambda: self._send_preview(row.index, number, pixels))

        self._frontend.decode([DecodeTask(row.job, latent, decoded)])

    def _on_finished(self, rows: list[BatchRow]) -> None:
        self._frontend.decode([DecodeTask(row.job, row.sample, self._on_decoded(row)) for row in rows])

    def _on_decoded(self, row: BatchRow) -> Callable[[Pixels], None]:
        def decoded(pixels: Pixels) -> None:
            self._frontend.count_image()
            self._frontend.post(self.key, lambda: self._send_image(row, pixels))

        return decoded

    def _send_preview(self, index: int, number: int, pixels: Pixels) -> None:
        if not self._final_sent:
            self._client.send_preview(self._prepared.encode_image_file(pixels), index, number)

    def _send_image(self, row: BatchRow, pixels: Pixels) -> None:
        if self._final_sent:
            return
        try:
            file = self._prepared.encode_image_file(pixels)
        except Exception as error:
            self._on_failed(error)
            return
        self._num_pending -= 1
        final = not self._num_pending
        if final:
            with self._lock:
                if self._ended:  # the error is on its way, and is the last response
                    return
                self._ended = True
            self._final_sent = True
            self._frontend.forget(self.key)
        self._client.send_image(file, row.seed, row.index, final=final)
