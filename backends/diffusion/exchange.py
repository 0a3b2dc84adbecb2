"""One request from its arrival to its last response."""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from backends.diffusion.decoder import Task
from backends.diffusion.pictures import Pixels
from backends.diffusion.preparing import Prepared
from backends.diffusion.request import Request
from backends.diffusion.rows import Job, Row
from backends.diffusion.schedulers import Latent
from backends.serving.errors import Cancelled, EngineFailed, GenerationError

_PAUSE = 0.05
"""Seconds between two reports of progress: a small model takes hundreds of steps a second, and each report costs
a third of a millisecond."""


class Client(Protocol):
    """The way back to one client, who may go away."""

    def is_gone(self) -> bool:
        """Whether the client has cancelled; takes a round trip to the server."""

    def send_progress(self, fraction: float) -> None:
        """Send how much of the work is done, 0 to 1."""

    def send_preview(self, image: bytes, index: int, number: int) -> None:
        """Send an encoded preview of an image, the `number`th of it, from 0 on."""

    def send_image(self, image: bytes, seed: int, index: int, *, final: bool) -> None:
        """Send an encoded image."""

    def fail(self, error: GenerationError) -> None:
        """Send an error as the last response."""


class Office(Protocol):
    """What an exchange needs of the desk, which documents it."""

    def prepare(self, request: Request, is_cancelled: Callable[[], bool]) -> Prepared: ...  # noqa: D102
    def is_closed(self) -> bool: ...  # noqa: D102
    def submit(self, job: Job) -> None: ...  # noqa: D102
    def cancel(self, job: Job) -> None: ...  # noqa: D102
    def decode(self, tasks: list[Task]) -> None: ...  # noqa: D102
    def count_cancelled(self) -> None: ...  # noqa: D102
    def count_image(self) -> None: ...  # noqa: D102
    def post(self, key: int, errand: Callable[[], None]) -> None: ...  # noqa: D102
    def forget(self, key: int) -> None: ...  # noqa: D102


class Exchange:
    """Its callbacks come from many threads; responses are sent by one, in the order in which they were posted."""

    def __init__(self, key: int, request: Request, client: Client, office: Office) -> None:
        self.key = key
        self.images = max(1, request.num_images)
        self.bytes = request.bytes
        """How much memory the request takes, until it is prepared."""
        self._request: Request | None = request
        self._client = client
        self._office = office
        self._lock = threading.Lock()
        self._ended = False
        self._job: Job | None = None
        self._prepared: Prepared
        # These belong to the sender's thread.
        self._answered = False
        self._left = 0
        # The loop's thread writes these; the sender's says that it has told.
        self._share = self._told = 0.0
        self._telling = False

    def begin(self) -> None:
        """Prepare and submit; runs in a thread for that."""
        # The exchange lives until the last image; the picture that came may have many megabytes.
        request, self._request = self._request, None
        try:
            if not self._ended and request is not None:
                self._begin(request)
        finally:
            self.bytes = 0

    def _begin(self, request: Request) -> None:
        try:
            prepared = self._office.prepare(request, lambda: self._ended)
            self._prepared, self._left = prepared, len(prepared.seeds)
            job = prepared.job(self._stepped, self._finished, self._failed, self._previewed)
            self._job = job
            if not self._ended:
                self._office.submit(job)
            if self._ended:  # the client went away meanwhile
                self._office.cancel(job)
        except GenerationError as error:
            if not (isinstance(error, Cancelled) and self._office.is_closed()):
                self.fail(error)
        except Exception as error:  # nobody else would answer
            self.fail(EngineFailed(f"The request could not be prepared: {str(error)[:500]}"))

    def cancel(self) -> None:
        """The client has gone; called by the watching thread."""
        self._office.count_cancelled()
        self.fail(Cancelled("The request was cancelled."))

    def fail(self, error: GenerationError) -> None:
        """End with an error, unless it has ended."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
        self._request = None
        if job := self._job:
            self._office.cancel(job)
        self._office.post(self.key, lambda: self._answer(error))

    def _answer(self, error: GenerationError) -> None:
        if not self._answered:
            self._answered = True
            self._office.forget(self.key)
            self._client.fail(error)

    def _failed(self, error: Exception) -> None:
        if not isinstance(error, GenerationError):
            error = EngineFailed(f"The image could not be made: {str(error)[:500]}")
        self.fail(error)

    def _stepped(self, share: float) -> None:
        """Report progress, unless a report left a moment ago or is about to leave: that one says the latest."""
        self._share = share
        now = time.monotonic()
        if not self._telling and (now - self._told >= _PAUSE or share >= 1):
            self._told, self._telling = now, True
            self._office.post(self.key, self._tell)

    def _tell(self) -> None:
        self._telling = False
        if not self._answered:
            self._client.send_progress(self._share)

    def _previewed(self, row: Row, number: int, latent: Latent) -> None:
        def decoded(pixels: Pixels) -> None:
            self._office.post(self.key, lambda: self._send_preview(row.index, number, pixels))

        self._office.decode([Task(row.job, latent, decoded)])

    def _finished(self, rows: list[Row]) -> None:
        self._office.decode([Task(row.job, row.sample, self._decoded(row)) for row in rows])

    def _decoded(self, row: Row) -> Callable[[Pixels], None]:
        def decoded(pixels: Pixels) -> None:
            self._office.count_image()
            self._office.post(self.key, lambda: self._send_image(row, pixels))

        return decoded

    def _send_preview(self, index: int, number: int, pixels: Pixels) -> None:
        if not self._answered:
            self._client.send_preview(self._prepared.encode(pixels), index, number)

    def _send_image(self, row: Row, pixels: Pixels) -> None:
        if self._answered:
            return
        try:
            file = self._prepared.encode(pixels)
        except Exception as error:
            self._failed(error)
            return
        self._left -= 1
        final = not self._left
        if final:
            with self._lock:
                if self._ended:  # the error is on its way, and is the last response
                    return
                self._ended = True
            self._answered = True
            self._office.forget(self.key)
        self._client.send_image(file, row.seed, row.index, final=final)
