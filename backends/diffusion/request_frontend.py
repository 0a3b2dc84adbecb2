"""Where requests come in: preparation, the loop, the decoder, answers and cancellation are brought together here.

The desk knows neither Triton nor tensors; `model.py` hands it what it read from them.
"""

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from backends.diffusion.active_request import ActiveRequest, ResponseSender
from backends.diffusion.denoiser import Denoiser
from backends.diffusion.denoising_job import DenoisingJob
from backends.diffusion.latent_decoder import DecodeTask, LatentDecoder
from backends.diffusion.preprocessor import PreprocessedRequest, Preprocessor
from backends.diffusion.request import Request
from backends.serving.cancellation import CancellationWatcher
from backends.serving.errors import EngineFailed, GenerationError, Overloaded
from backends.serving.senders import SenderThreads


class RequestFrontend:
    """Takes requests, and sees to it that each of them is answered, with one last response and no more."""

    def __init__(
        self,
        preparing: Preprocessor,
        denoiser: Denoiser,
        decoder: LatentDecoder,
        max_waiting: int,
        max_waiting_bytes: int,
    ) -> None:
        """Take over the loop and the decoder: `close` closes them.

        A request with which more than `max_waiting` images would be open, or more than `max_waiting_bytes` of texts
        and pictures would wait to be prepared, is refused as overloaded; not where it would be the only one.
        """
        self._preprocessor = preparing
        self._denoiser = denoiser
        self._decoder = decoder
        self._max_waiting = max_waiting
        self._max_waiting_bytes = max_waiting_bytes
        self._keys = itertools.count()
        self._lock = threading.Lock()
        self._active_requests: dict[int, ActiveRequest] = {}
        self._closed = False
        self._senders = SenderThreads()
        self._cancellation = CancellationWatcher()
        # Two at once, so that Triton can put the prompts of requests that come together into one batch.
        self._prompt_pool = ThreadPoolExecutor(2, "diffusion-prompts")
        # A large picture takes seconds to encode.
        self._image_pool = ThreadPoolExecutor(1, "diffusion-pictures")

    def add_request(self, request: Request, client: ResponseSender) -> None:
        """Begin to answer; returns at once."""
        exchange = ActiveRequest(next(self._keys), request, client, self)
        refusal: GenerationError | None = None
        with self._lock:
            waiting = sum(each.images for each in self._active_requests.values())
            held = sum(each.nbytes for each in self._active_requests.values())
            if self._closed:
                refusal = EngineFailed("The model is being unloaded.")
            elif self._active_requests and waiting + exchange.images > self._max_waiting:
                refusal = Overloaded(f"{waiting} images are being made or wait already; try again later.")
            elif held and held + exchange.nbytes > self._max_waiting_bytes:
                refusal = Overloaded(f"{held / 1e6:.0f} MB of requests wait already; try again later.")
            else:
                self._active_requests[exchange.key] = exchange
        if refusal:
            client.fail(refusal)
            return
        self._cancellation.add(exchange.key, client.is_cancelled, exchange.cancel)
        try:
            (self._image_pool if request.images else self._prompt_pool).submit(exchange.begin)
        except RuntimeError as error:  # the desk closes, or there is no thread
            exchange.fail(EngineFailed(f"The request could not be prepared: {error}"))

    def close(self) -> None:
        """Answer what is open, and end every thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._cancellation.close()
        for lane in (self._prompt_pool, self._image_pool):
            lane.shutdown(cancel_futures=True)
        self._denoiser.close()
        self._decoder.close()
        with self._lock:
            exchanges = list(self._active_requests.values())
        for exchange in exchanges:
            exchange.fail(EngineFailed("The model is being unloaded."))
        self._senders.close()

    def preprocess(self, request: Request, is_cancelled: Callable[[], bool]) -> PreprocessedRequest:
        """Everything that comes before the loop. Raises `GenerationError`."""
        return self._preprocessor.preprocess(request, lambda: is_cancelled() or self._closed)

    def is_closed(self) -> bool:
        """Whether the desk is being closed, and answers what is open itself."""
        return self._closed

    def submit(self, job: DenoisingJob) -> None:
        """Hand a job to the loop."""
        self._denoiser.submit(job)

    def cancel(self, job: DenoisingJob) -> None:
        """Have the loop forget a job."""
        self._denoiser.cancel(job)

    def decode(self, tasks: list[DecodeTask]) -> None:
        """Hand latents to the decoder."""
        self._decoder.submit(tasks)

    def count_cancelled(self) -> None:
        """A client has gone; only the watching thread says so."""
        self._denoiser.stats.requests_cancelled += 1

    def count_image(self) -> None:
        """An image was decoded; only the decoder's thread says so."""
        self._denoiser.stats.images += 1

    def post(self, key: int, errand: Callable[[], None]) -> None:
        """Have a sender thread do something for a request; what is posted for one request runs in order."""
        self._senders.post(key, errand)

    def forget(self, key: int) -> None:
        """A request is about to have its last response."""
        self._cancellation.remove(key)
        with self._lock:
            self._active_requests.pop(key, None)
