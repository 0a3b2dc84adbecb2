"""Where requests come in: preparation, the loop, the decoder, answers and cancellation are brought together here.

The desk knows neither Triton nor tensors; `model.py` hands it what it read from them.
"""

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from backends.diffusion.decoder import Decoder, Task
from backends.diffusion.denoiser import Denoiser
from backends.diffusion.exchange import Client, Exchange
from backends.diffusion.preparing import Prepared, Preparing
from backends.diffusion.request import Request
from backends.diffusion.rows import Job
from backends.serving.errors import EngineFailed, GenerationError, Overloaded
from backends.serving.outbox import Outbox
from backends.serving.watch import Watch


class Desk:
    """Takes requests, and sees to it that each of them is answered, with one last response and no more."""

    def __init__(
        self, preparing: Preparing, denoiser: Denoiser, decoder: Decoder, max_waiting: int, max_waiting_bytes: int
    ) -> None:
        """Take over the loop and the decoder: `close` closes them.

        A request with which more than `max_waiting` images would be open, or more than `max_waiting_bytes` of texts
        and pictures would wait to be prepared, is refused as overloaded; not where it would be the only one.
        """
        self._preparing = preparing
        self._denoiser = denoiser
        self._decoder = decoder
        self._max_waiting = max_waiting
        self._max_waiting_bytes = max_waiting_bytes
        self._keys = itertools.count()
        self._lock = threading.Lock()
        self._open: dict[int, Exchange] = {}
        self._closed = False
        self._outbox = Outbox()
        self._watch = Watch()
        # Two at once, so that Triton can put the prompts of requests that come together into one batch.
        self._prompts = ThreadPoolExecutor(2, "diffusion-prompts")
        # A large picture takes seconds to encode.
        self._pictures = ThreadPoolExecutor(1, "diffusion-pictures")

    def take(self, request: Request, client: Client) -> None:
        """Begin to answer; returns at once."""
        exchange = Exchange(next(self._keys), request, client, self)
        refusal: GenerationError | None = None
        with self._lock:
            waiting = sum(each.images for each in self._open.values())
            held = sum(each.bytes for each in self._open.values())
            if self._closed:
                refusal = EngineFailed("The model is being unloaded.")
            elif self._open and waiting + exchange.images > self._max_waiting:
                refusal = Overloaded(f"{waiting} images are being made or wait already; try again later.")
            elif held and held + exchange.bytes > self._max_waiting_bytes:
                refusal = Overloaded(f"{held / 1e6:.0f} MB of requests wait already; try again later.")
            else:
                self._open[exchange.key] = exchange
        if refusal:
            client.fail(refusal)
            return
        self._watch.add(exchange.key, client.is_gone, exchange.cancel)
        try:
            (self._pictures if request.images else self._prompts).submit(exchange.begin)
        except RuntimeError as error:  # the desk closes, or there is no thread
            exchange.fail(EngineFailed(f"The request could not be prepared: {error}"))

    def close(self) -> None:
        """Answer what is open, and end every thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._watch.close()
        for lane in (self._prompts, self._pictures):
            lane.shutdown(cancel_futures=True)
        self._denoiser.close()
        self._decoder.close()
        with self._lock:
            exchanges = list(self._open.values())
        for exchange in exchanges:
            exchange.fail(EngineFailed("The model is being unloaded."))
        self._outbox.close()

    def prepare(self, request: Request, is_cancelled: Callable[[], bool]) -> Prepared:
        """Everything that comes before the loop. Raises `GenerationError`."""
        return self._preparing.prepare(request, lambda: is_cancelled() or self._closed)

    def is_closed(self) -> bool:
        """Whether the desk is being closed, and answers what is open itself."""
        return self._closed

    def submit(self, job: Job) -> None:
        """Hand a job to the loop."""
        self._denoiser.submit(job)

    def cancel(self, job: Job) -> None:
        """Have the loop forget a job."""
        self._denoiser.cancel(job)

    def decode(self, tasks: list[Task]) -> None:
        """Hand latents to the decoder."""
        self._decoder.submit(tasks)

    def count_cancelled(self) -> None:
        """A client has gone; only the watching thread says so."""
        self._denoiser.figures.requests_cancelled += 1

    def count_image(self) -> None:
        """An image was decoded; only the decoder's thread says so."""
        self._denoiser.figures.images += 1

    def post(self, key: int, errand: Callable[[], None]) -> None:
        """Have a sender thread do something for a request; what is posted for one request runs in order."""
        self._outbox.post(key, errand)

    def forget(self, key: int) -> None:
        """A request is about to have its last response."""
        self._watch.remove(key)
        with self._lock:
            self._open.pop(key, None)
