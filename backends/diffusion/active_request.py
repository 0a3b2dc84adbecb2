"""One request for images or a video until its job is denoised."""

import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from backends.diffusion.denoising_job import BatchRow, DenoisingJob
from backends.diffusion.request import Request
from backends.diffusion.schedulers import Latent
from backends.serving.active_request import ActiveRequest, ResponseSender
from backends.serving.errors import EngineFailed, GenerationError

if TYPE_CHECKING:
    from backends.diffusion.request_frontend import DiffusionFrontend

_PROGRESS_INTERVAL_SECONDS = 0.05
"""Least time between two reports of progress, in seconds: a small model takes hundreds of steps per second, and each
report costs a third of a millisecond."""


class ProgressSender(ResponseSender, Protocol):
    """Sends the responses of one request."""

    def send_progress(self, fraction: float) -> None:
        """Send the finished share of the work, 0 to 1."""


FrontendT = TypeVar("FrontendT", bound="DiffusionFrontend[Any, Any, Any]")
SenderT = TypeVar("SenderT", bound=ProgressSender)
RequestT = TypeVar("RequestT", bound=Request)


class ActiveDiffusionRequest(ActiveRequest[FrontendT, SenderT], Generic[FrontendT, SenderT, RequestT]):
    """One request: its preprocessing, its job and its progress. A subclass sends what the job yields."""

    output = "image"
    """The output, for messages."""

    def __init__(self, key: int, request: RequestT, sender: SenderT, frontend: FrontendT, size: int = 1) -> None:
        """`size` is the number of images or videos that the request asks for."""
        super().__init__(key, sender, frontend, size)
        self.nbytes = request.nbytes
        """Bytes of the texts and files that wait for preprocessing; 0 afterwards."""
        self._has_files = bool(request.images or request.further_files)
        self._request: RequestT | None = request
        self._job: DenoisingJob | None = None
        # The denoiser's thread writes these; the sender thread clears `_report_pending`.
        self._progress = self._last_report_time = 0.0
        self._report_pending = False

    def start(self) -> None:
        """Have the inputs preprocessed."""
        self.run_in_pool(self._frontend.file_pool if self._has_files else self._frontend.prompt_pool, self._prepare)

    def release(self) -> None:
        """Drop the inputs and cancel the job."""
        self._request = None
        if self._job:
            self._frontend.denoiser.cancel(self._job)

    @abstractmethod
    def make_job(self, request: RequestT) -> DenoisingJob:
        """Preprocess a request and return its job, whose callbacks are the methods of this class."""

    @abstractmethod
    def on_preview(self, row: BatchRow, number: int, latent: Latent) -> None:
        """Have the latent of the preview `number` decoded."""

    @abstractmethod
    def on_finished(self, rows: list[BatchRow]) -> None:
        """Have finished latents decoded."""

    def on_failed(self, error: Exception) -> None:
        """Send an error as the last response."""
        if not isinstance(error, GenerationError):
            error = EngineFailed(f"The {self.output} could not be generated: {str(error)[:500]}")
        self.fail(error)

    def on_progress(self, progress: float) -> None:
        """Report progress, unless a report was posted lately or is pending: a pending one sends the latest value."""
        self._progress = progress
        now = time.monotonic()
        if not self._report_pending and (now - self._last_report_time >= _PROGRESS_INTERVAL_SECONDS or progress >= 1):
            self._last_report_time, self._report_pending = now, True
            self.post(self._send_progress)

    def _prepare(self) -> None:
        # An active request lives until its last response; the files that came with it may have many megabytes.
        request, self._request = self._request, None
        try:
            if request is not None:
                self._job = self.make_job(request)
                if not self.stopped:
                    self._frontend.denoiser.submit(self._job)
        finally:
            self.nbytes = 0

    def _send_progress(self) -> None:
        self._report_pending = False
        self._sender.send_progress(self._progress)
