"""Requests for embeddings: validation, tokenisation, and the shortening and normalization of their vectors."""

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

_SMALL_REQUEST_BYTES = 65_536
"""Size in bytes up to which a request is tokenised within tens of milliseconds; larger ones have their own thread."""


@dataclass(frozen=True, slots=True)
class Request:
    """The tensors of one request, unchecked; None if not sent. Exactly one of `texts` and `token_ids` is required.

    `truncate_prompt_tokens`, -1 for the context length, overrides `truncate`; without both, the model's parameter
    applies.
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
        """The number of inputs."""
        if self.texts is not None:
            return len(self.texts)
        return 1 if self.token_counts is None else int(self.token_counts.size)

    @property
    def nbytes(self) -> int:
        """The size of all inputs together, in bytes."""
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
                max_tokens=self._max_tokens(request),
                is_cancelled=is_cancelled,
            )
        assert request.token_ids is not None
        return self._tokenizer.validate_token_ids(
            request.token_ids, request.token_counts, max_tokens=self._max_tokens(request)
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
        """Return the number of tokens to which longer inputs are cut, or None if they are refused."""
        max_tokens = request.truncate_prompt_tokens
        if max_tokens is None:
            truncate = request.truncate
            max_tokens = self._options.truncate_prompt_tokens if truncate is None else (-1 if truncate else None)
        context_length = self._options.context_length
        if max_tokens is None or 1 <= max_tokens <= context_length:
            return max_tokens
        if max_tokens == -1:
            return context_length
        raise InvalidValue(
            f"This must be -1, for all that the model takes, or 1 to {context_length} tokens, not {max_tokens}.",
            "truncate_prompt_tokens",
        )

    def _check_dimensions(self, dimensions: int | None) -> None:
        allowed, full = self._options.matryoshka, self._options.dimensions
        if dimensions is None:
            return
        if not 1 <= dimensions <= full:
            raise InvalidValue(f"The model's vectors have {full} dimensions, not {dimensions}.", "dimensions")
        if dimensions == full or allowed is True:
            return
        if allowed is False:
            raise UnsupportedOption(
                f"This model was not trained for shortened vectors; its vectors have {full} dimensions.", "dimensions"
            )
        if dimensions not in allowed:
            raise UnsupportedOption(
                f"The vectors can be shortened to {', '.join(map(str, allowed))} dimensions, not to {dimensions}.",
                "dimensions",
            )

    def truncate_dimensions(self, embeddings: Embeddings, dimensions: int | None) -> Embeddings:
        """Keep the first `dimensions` of each vector; normalise the vectors again if the model does."""
        if dimensions is None or dimensions == embeddings.shape[1]:
            return embeddings
        embeddings = embeddings[:, :dimensions]
        if self._options.normalized:
            embeddings = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
        return np.ascontiguousarray(embeddings, np.float32)


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
            lambda embeddings: self._on_finished(embeddings, counts),
            lambda error: self.fail(EngineFailed(f"The texts could not be embedded: {str(error)[:500]}")),
        )
        self._frontend.scheduler.submit(self._job)

    def _on_finished(self, embeddings: Embeddings, counts: npt.NDArray[np.int32]) -> None:
        embeddings = self._frontend.truncate_dimensions(embeddings, self._request.dimensions)
        self.finish(lambda: self._sender.send(embeddings, counts))
