"""Where requests come in: tokenising, the queue, answers and cancellation are brought together here.

The desk knows neither Triton nor tensors; `model.py` hands it what it read from them.
"""

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from backends.embedding.encoder import Embeddings, TokenIds
from backends.embedding.options import Options
from backends.embedding.scheduler import EmbeddingJob, EmbeddingScheduler
from backends.embedding.tokenization import InputTokenizer, IntegerArray
from backends.serving.cancellation import CancellationWatcher
from backends.serving.errors import (
    Cancelled,
    EngineFailed,
    GenerationError,
    InvalidValue,
    Overloaded,
    UnsupportedOption,
)
from backends.serving.senders import SenderThreads

# Requests up to this size are tokenised within tens of milliseconds; larger ones have a thread of their own.
_SMALL_REQUEST_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Request:
    """The tensors of one request. Exactly one of `texts` and `token_ids` is wanted.

    `truncate_prompt_tokens`, -1 for the context, wins over `truncate`; with neither, the model's parameter holds.
    """

    texts: list[bytes] | None = None
    token_ids: IntegerArray | None = None
    token_counts: IntegerArray | None = None
    dimensions: int | None = None
    purpose: str | None = None
    truncate: bool | None = None
    truncate_prompt_tokens: int | None = None

    @property
    def size(self) -> int:
        """How many inputs there are."""
        if self.texts is not None:
            return len(self.texts)
        return 1 if self.token_counts is None else int(self.token_counts.size)

    @property
    def nbytes(self) -> int:
        """How large the inputs are together."""
        return sum(map(len, self.texts or ())) + (0 if self.token_ids is None else int(self.token_ids.nbytes))


class ResponseSender(Protocol):
    """The way back to one client, who may go away."""

    def is_cancelled(self) -> bool:
        """Whether the client has cancelled; takes a round trip to the server."""

    def send(self, embedding: Embeddings, num_tokens: npt.NDArray[np.int32]) -> None:
        """Send float32[inputs, dimensions] and int32[inputs] as the one response."""

    def fail(self, error: GenerationError) -> None:
        """Send an error as the one response."""


class RequestFrontend:
    """Takes requests, and sees to it that each of them is answered once."""

    def __init__(self, lanes: EmbeddingScheduler, texts: InputTokenizer, options: Options) -> None:
        """Take over the lanes: `close` closes them."""
        self._scheduler = lanes
        self._tokenizer = texts
        self._options = options
        self._keys = itertools.count()
        self._lock = threading.Lock()
        self._active_requests: dict[int, _ActiveRequest] = {}
        self._num_inputs = 0
        self._closed = False
        self._senders = SenderThreads()
        self._cancellation = CancellationWatcher()
        self._small_pool = ThreadPoolExecutor(1, "embedding-texts")
        self._large_pool = ThreadPoolExecutor(1, "embedding-large-texts")

    def add_request(self, request: Request, client: ResponseSender) -> None:
        """Begin to answer; returns at once."""
        exchange = _ActiveRequest(next(self._keys), request, client, self)
        refusal: GenerationError | None = None
        with self._lock:
            if self._closed:
                refusal = EngineFailed("The model is being unloaded.")
            elif self._num_inputs > self._options.max_waiting:
                refusal = Overloaded(f"{self._num_inputs} texts wait already; try again later.")
            else:
                self._active_requests[exchange.key] = exchange
                self._num_inputs += request.size
        if refusal:
            client.fail(refusal)
            return
        self._cancellation.add(exchange.key, client.is_cancelled, exchange.cancel)
        try:
            (self._large_pool if request.nbytes > _SMALL_REQUEST_BYTES else self._small_pool).submit(exchange.begin)
        except RuntimeError as error:  # the desk closes, or there is no thread
            exchange.end(EngineFailed(f"The request could not be prepared: {error}"))

    def close(self) -> None:
        """Answer what is open, and end every thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._cancellation.close()
        for lane in (self._small_pool, self._large_pool):
            lane.shutdown(cancel_futures=True)
        self._scheduler.close()
        with self._lock:
            exchanges = list(self._active_requests.values())
        for exchange in exchanges:
            exchange.end(EngineFailed("The model is being unloaded."))
        self._senders.close()

    def tokenize(self, exchange: "_ActiveRequest") -> list[TokenIds]:
        """The tokens of each input. Raises `GenerationError`."""
        request = exchange.request
        self._check(request)
        if request.texts is not None:
            return self._tokenizer.encode(
                request.texts,
                request.purpose,
                cut=self._max_tokens(request),
                is_cancelled=lambda: exchange.ended or self._closed,  # where the desk closes, it answers itself
            )
        assert request.token_ids is not None
        return self._tokenizer.validate_token_ids(
            request.token_ids, request.token_counts, cut=self._max_tokens(request)
        )

    def _check(self, request: Request) -> None:
        if (request.texts is None) == (request.token_ids is None):
            raise InvalidValue("Exactly one of text and token_ids must be given.", "text")
        if request.token_counts is not None and request.token_ids is None:
            raise InvalidValue("This belongs to token_ids, which are not given.", "token_counts")
        if request.purpose is not None and request.texts is None:
            raise InvalidValue("No prompt can be put before token ids.", "purpose")
        self._check_dimensions(request.dimensions)

    def _max_tokens(self, request: Request) -> int | None:
        """How many tokens of an input are kept; None where a longer one is refused."""
        wanted = request.truncate_prompt_tokens
        if wanted is None:
            truncate = request.truncate
            wanted = self._options.truncate_prompt_tokens if truncate is None else (-1 if truncate else None)
        most = self._options.context_length
        if wanted is None or 1 <= wanted <= most:
            return wanted
        if wanted == -1:
            return most
        raise InvalidValue(
            f"This must be -1, for all that the model takes, or 1 to {most} tokens, not {wanted}.",
            "truncate_prompt_tokens",
        )

    def _check_dimensions(self, wanted: int | None) -> None:
        allowed, whole = self._options.matryoshka, self._options.dimensions
        if wanted is None:
            return
        if not 1 <= wanted <= whole:
            raise InvalidValue(f"The model's rows are {whole} numbers wide; {wanted} cannot be had.", "dimensions")
        if wanted == whole or allowed is True:
            return
        if allowed is False:
            raise UnsupportedOption(
                f"This model was not trained for rows that are cut; they are {whole} numbers wide.", "dimensions"
            )
        if wanted not in allowed:
            raise UnsupportedOption(
                f"The rows can be cut to {', '.join(map(str, allowed))}, not to {wanted}.", "dimensions"
            )

    def is_closed(self) -> bool:
        """Whether the desk is being closed, and answers what is open itself."""
        return self._closed

    def truncate_dimensions(self, rows: Embeddings, width: int | None) -> Embeddings:
        """Keep the first `width` numbers of each row, and bring rows of length 1 back to it."""
        if width is None or width == rows.shape[1]:
            return rows
        rows = rows[:, :width]
        if self._options.normalized:
            rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return np.ascontiguousarray(rows, np.float32)

    def submit(self, job: EmbeddingJob) -> None:
        """Hand a job to the lanes."""
        self._scheduler.submit(job)

    def cancel(self, job: EmbeddingJob) -> None:
        """Have the lanes forget a job."""
        self._scheduler.cancel(job)

    def count_cancelled(self) -> None:
        """A client has gone; only the watching thread says so."""
        self._scheduler.stats.requests_cancelled += 1

    def respond(self, exchange: "_ActiveRequest", outcome: "EmbeddingResult | GenerationError") -> None:
        """Forget a request and have a sender thread answer it."""
        self._cancellation.remove(exchange.key)
        with self._lock:
            if self._active_requests.pop(exchange.key, None):
                self._num_inputs -= exchange.request.size
        if isinstance(outcome, GenerationError):
            self._senders.post(exchange.key, lambda: exchange.client.fail(outcome))
        else:
            self._senders.post(exchange.key, lambda: exchange.client.send(*outcome))


EmbeddingResult = tuple[Embeddings, npt.NDArray[np.int32]]


class _ActiveRequest:
    """One request from its arrival to its answer."""

    def __init__(self, key: int, request: Request, client: ResponseSender, desk: RequestFrontend) -> None:
        self.key = key
        self.request = request
        self.client = client
        self.ended = False
        self._frontend = desk
        self._lock = threading.Lock()
        self._job: EmbeddingJob | None = None

    def begin(self) -> None:
        """Tokenise and submit; runs in the thread for texts."""
        if self.ended:
            return
        try:
            tokens = self._frontend.tokenize(self)
            counts = np.array([len(text) for text in tokens], np.int32)
            self._job = EmbeddingJob(
                tokens,
                lambda rows: self.end((self._frontend.truncate_dimensions(rows, self.request.dimensions), counts)),
                lambda error: self.end(EngineFailed(f"The texts could not be embedded: {str(error)[:500]}")),
            )
            self._frontend.submit(self._job)
            if self.ended:  # the client went away meanwhile
                self._frontend.cancel(self._job)
        except GenerationError as error:
            if not (isinstance(error, Cancelled) and self._frontend.is_closed()):
                self.end(error)
        except Exception as error:  # nobody else would answer
            self.end(EngineFailed(f"The request could not be prepared: {str(error)[:500]}"))

    def cancel(self) -> None:
        """The client has gone; called by the watching thread."""
        self._frontend.count_cancelled()
        self.end(Cancelled("The request was cancelled."))
        if self._job:
            self._frontend.cancel(self._job)

    def end(self, outcome: EmbeddingResult | GenerationError) -> None:
        """Answer, unless that has happened."""
        with self._lock:
            if self.ended:
                return
            self.ended = True
        self._frontend.respond(self, outcome)
