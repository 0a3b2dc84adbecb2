"""Requests for images or videos: which of them the queue has room for, and the threads that work on them."""

from abc import abstractmethod
from typing import Any, TypeVar

from backends.diffusion.active_request import ActiveDiffusionRequest
from backends.diffusion.denoiser import Denoiser
from backends.diffusion.options import Options
from backends.diffusion.request import Request
from backends.serving.active_request import SenderT
from backends.serving.errors import GenerationError, Overloaded
from backends.serving.request_frontend import RequestFrontend

RequestT = TypeVar("RequestT", bound=Request)
ActiveT = TypeVar("ActiveT", bound=ActiveDiffusionRequest[Any, Any, Any])


class DiffusionFrontend(RequestFrontend[RequestT, SenderT, ActiveT]):
    """Bounds the queue, and owns the denoiser. A subclass adds the preprocessor and the decoder."""

    outputs = "images"
    """Plural of the output, for messages."""
    file_threads = 1
    """Threads that preprocess requests with files. A large image takes seconds to decode and to encode."""

    def __init__(self, denoiser: Denoiser, options: Options) -> None:
        """Own the denoiser: `close` closes it.

        A request is refused as overloaded where more than `max_waiting` outputs would be unanswered with it, or more
        than `max_waiting_bytes` of texts and files would wait for preprocessing. A request that would be the only one
        is admitted however large it is.
        """
        super().__init__(denoiser.stats)
        self.denoiser = denoiser
        self._max_waiting = options.max_waiting
        self._max_waiting_bytes = options.max_waiting_bytes
        # Two at once, so that Triton can put the prompts of requests that come together into one batch.
        self.prompt_pool = self.new_pool(2, "diffusion-prompts")
        self.file_pool = self.new_pool(self.file_threads, "diffusion-files")

    def queue_error(self, active: ActiveT) -> GenerationError | None:
        """Return `Overloaded` where a request is one output or one byte too many."""
        if self._active_requests and self.active_size + active.size > self._max_waiting:
            return Overloaded(f"{self.active_size} {self.outputs} are being generated or are waiting; try again later.")
        waiting_bytes = sum(other.nbytes for other in self._active_requests.values())
        if waiting_bytes and waiting_bytes + active.nbytes > self._max_waiting_bytes:
            return Overloaded(f"{waiting_bytes / 1e6:.0f} MB of requests are waiting; try again later.")
        return None

    def close_scheduler(self) -> None:
        """Fail every job that is open."""
        self.denoiser.close()
        self.close_decoder()

    @abstractmethod
    def close_decoder(self) -> None:
        """End the threads behind the denoiser."""
