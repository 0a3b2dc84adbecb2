"""Requests for embeddings: which of them are valid, how they are tokenised, and what their vectors become."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from backends.embedding.encoder import Embeddings, TokenIds
from backends.embedding.options import Options
from backends.embedding.scheduler import EmbeddingJob, EmbeddingScheduler
from backends.embedding.tokenization import InputTokenizer, IntegerArray
from backends.serving.active_request import ActiveRequest, ResponseSender
from backends.serving.errors import EngineFailed, GenerationError, InvalidValue, Overloaded, UnsupportedOption
from backends.serving.request_frontend import RequestFrontend

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


class EmbeddingSender(ResponseSender, Protocol):
    """Sends the one response of a request."""

    def send(self, embedding: Embeddings, num_tokens: npt.NDArray[np.int32]) -> None:
        """Send float32[inputs, dimensions] and int32[inputs] as the one response."""


class EmbeddingFrontend(RequestFrontend[Request, EmbeddingSender, "ActiveEmbedding"]):
    """Tokenises requests and hands them to the scheduler."""

    def __init__(self, scheduler: EmbeddingScheduler, tokenizer: InputTokenizer, options: Options) -> None:
        """Own the scheduler: `close` closes it."""
        super().__init__(scheduler.stats)
        self.scheduler = scheduler
        self._tokenizer = tokenizer
        self._options = options
        self._small_pool = self.new_pool(1, "embedding-texts")
        self._large_pool = self.new_pool(1, "embedding-large-texts")

    def make_active(self, key: int, request: Request, sender: EmbeddingSender) -> "ActiveEmbedding":
        """Return the active request that `key` identifies; it has not started."""
        return ActiveEmbedding(key, request, sender, self)

    def queue_error(self, active: "ActiveEmbedding") -> GenerationError | None:
        """Return `Overloaded` while more than `max_waiting` inputs are unanswered."""
        if self.active_size > self._options.max_waiting:
            return Overloaded(f"{self.active_size} texts wait already; try again later.")
        return None

    def close_scheduler(self) -> None:
        """Fail every job that is open."""
        self.scheduler.close()

    def pool_for(self, request: Request) -> ThreadPoolExecutor:
        """Return the thread that tokenises a request: large ones have one of their own."""
        return self._large_pool if request.nbytes > _SMALL_REQUEST_BYTES else self._small_pool

    def tokenize(self, request: Request, is_cancelled: Callable[[], bool]) -> list[TokenIds]:
        """Return the tokens of each input. Raises `GenerationError`, which is `Cancelled` once `is_cancelled`."""
        self._check(request)
        if request.texts is not None:
            return self._tokenizer.encode(
                request.texts,
                request.purpose,
                cut=self._max_tokens(request),
                is_cancelled=is_cancelled,
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

    def truncate_dimensions(self, rows: Embeddings, width: int | None) -> Embeddings:
        """Keep the first `width` numbers of each row, and bring rows of length 1 back to it."""
        if width is None or width == rows.shape[1]:
            return rows
        rows = rows[:, :width]
        if self._options.normalized:
            rows = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        return np.ascontiguousarray(rows, np.float32)


class ActiveEmbedding(ActiveRequest[EmbeddingFrontend, EmbeddingSender]):
    """One request from its admission to its one response."""

    def __init__(self, key: int, request: Request, sender: EmbeddingSender, frontend: EmbeddingFrontend) -> None:
        super().__init__(key, sender, frontend, request.size)
        self._request = request
        self._job: EmbeddingJob | None = None

    def start(self) -> None:
        """Have the inputs tokenised."""
        self.run_in_pool(self._frontend.pool_for(self._request), self._prepare)

    def release(self) -> None:
        """Take the inputs out of the queue."""
        if self._job:
            self._frontend.scheduler.cancel(self._job)

    def _prepare(self) -> None:
        tokens = self._frontend.tokenize(self._request, self.is_abandoned)
        counts = np.array([len(text) for text in tokens], np.int32)
        self._job = EmbeddingJob(
            tokens,
            lambda rows: self._on_finished(rows, counts),
            lambda error: self.fail(EngineFailed(f"The texts could not be embedded: {str(error)[:500]}")),
        )
        self._frontend.scheduler.submit(self._job)

    def _on_finished(self, rows: Embeddings, counts: npt.NDArray[np.int32]) -> None:
        rows = self._frontend.truncate_dimensions(rows, self._request.dimensions)
        self.finish(lambda: self._sender.send(rows, counts))
