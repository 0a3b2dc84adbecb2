"""Where requests come in: prompt, engine, replies and cancellation are brought together here.

The desk knows neither Triton nor tensors; `model.py` hands it what it read from them.
"""

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from backends.llm.engine import Engine, Event, Generation, Grammar, Pictures, Tokens
from backends.llm.exchange import Client, Exchange, Request
from backends.llm.literal import Spans, read_spans
from backends.llm.prompt import Prompts
from backends.llm.sampling import Sampling, Structure, parse_sampling, read_parameters
from backends.llm.structures.grammar import Grammar as CompiledGrammar
from backends.llm.structures.grammars import Grammars
from backends.serving.errors import (
    EngineFailed,
    GenerationError,
    InvalidValue,
    Overloaded,
    UnsupportedOption,
)
from backends.serving.outbox import Outbox
from backends.serving.watch import Watch

if TYPE_CHECKING:
    from backends.llm.vision.sight import Sight

# Prompts up to this size are tokenised within a millisecond or so; longer ones have a thread of their own.
_SHORT_BYTES = 16_384
# With up to seven rows every token travels by itself; with 16, four do: ten responses a second on two cores.
_ROWS_PER_TOKEN = 4


class Desk:
    """Takes requests, and sees to it that each of them is answered, with one last response and no more."""

    def __init__(
        self,
        engine: Engine,
        prompts: Prompts,
        max_open: int,
        defaults: Sampling | None = None,
        grammars: Grammars | None = None,
        sight: "Sight | None" = None,
    ) -> None:
        """Take over an engine: `close` closes it. More than `max_open` requests at once are refused as overloaded.

        `defaults` stand for what a request does not say. `grammars` are taken over too. `sight` is there for
        models that are shown pictures.
        """
        self._sight = sight
        self._defaults = defaults or Sampling()
        self._grammars = grammars
        self._engine = engine
        self._prompts = prompts
        self._max_open = max_open
        self._keys = itertools.count()
        self._lock = threading.Lock()
        self._open: dict[int, Exchange] = {}
        self._closed = False
        self._outbox = Outbox()
        self._watch = Watch()
        self._short = ThreadPoolExecutor(1, "llm-prompts")
        self._long = ThreadPoolExecutor(1, "llm-long-prompts")
        # A schema of 256 KB takes 10 ms to read before it is compiled.
        self._structured = ThreadPoolExecutor(1, "llm-structures")
        # A large picture takes many seconds to encode.
        self._shown = ThreadPoolExecutor(1, "llm-pictures")

    def take(self, request: Request, client: Client) -> None:
        """Begin to answer; returns at once."""
        exchange = Exchange(next(self._keys), request, client, self)
        with self._lock:
            refusal: GenerationError | None = None
            if self._closed:
                refusal = EngineFailed("The model is being unloaded.")
            elif len(self._open) >= self._max_open:
                refusal = Overloaded(f"{len(self._open)} requests are open already; try again later.")
            else:
                self._open[exchange.key] = exchange
        if refusal:
            client.fail(refusal)
            return
        self._watch.add(exchange.key, client.is_gone, exchange.cancel)
        if request.is_structured:
            self._hand(self._structured, exchange, exchange.compile)
        else:
            self.prepare(request, exchange, exchange.begin)

    def prepare(self, request: Request, exchange: Exchange, begin: Callable[[], None]) -> None:
        """Have the prompt tokenised, and what `begin` does besides, in the thread for such prompts."""
        self._hand(self._lane(request), exchange, begin)

    def is_short(self, request: Request) -> bool:
        """Whether its prompt may be tokenised in any thread."""
        return self._lane(request) is self._short

    def _hand(self, lane: ThreadPoolExecutor, exchange: Exchange, do: Callable[[], None]) -> None:
        try:
            lane.submit(do)
        except RuntimeError as error:  # the lane is closed, or has no thread
            with self._lock:
                closed = self._closed
            if not closed:  # `close` answers what is open, and this request is
                exchange.fail(EngineFailed(f"The request could not be prepared: {error}"))

    def close(self) -> None:
        """Answer what is open, and end every thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._watch.close()
        for lane in (self._short, self._long, self._structured, self._shown):
            lane.shutdown(cancel_futures=True)
        self._engine.close()
        if self._grammars:
            self._grammars.close()
        with self._lock:
            exchanges = list(self._open.values())
        for exchange in exchanges:
            exchange.fail(EngineFailed("The model is being unloaded."))
        self._outbox.close()

    def sampling(self, request: Request) -> Sampling:
        """The options of a request. Raises `GenerationError`."""
        if isinstance(request.sampling, bytes):
            return parse_sampling(request.sampling, self._engine.vocab_size, self._defaults)
        return read_parameters(request.sampling, self._engine.vocab_size, self._defaults)

    def generation(
        self,
        request: Request,
        sampling: Sampling,
        grammar: Grammar | None,
        sink: Callable[[Event], None],
        is_cancelled: Callable[[], bool],
    ) -> tuple[Generation, str]:
        """The generation a request asks for, and what its answers begin with. Raises `GenerationError`."""
        if self._sight is None and (count := len(request.images)):
            raise UnsupportedOption(f"This model reads no pictures, and {count} came with the request.", "image")
        if (request.text is None) == (request.token_ids is None):
            raise InvalidValue("Exactly one of text_input and token_ids must be given.", "text_input")
        tokens, pictures = self._read(request, is_cancelled)
        prefix = ""
        if not request.exclude_input:
            ids = request.token_ids
            text = (request.text or b"").decode("utf-8")
            prefix = text if ids is None else self._prompts.decode(ids.reshape(-1).astype(np.int64))
        return Generation(tokens, sampling, sink, grammar, pictures), prefix

    def _read(self, request: Request, is_cancelled: Callable[[], bool]) -> tuple[Tokens, Pictures | None]:
        """The tokens of the prompt, with what stands for its pictures."""
        sight = self._sight
        pictures = sight.open(request.images) if sight else ()
        if request.text is not None:
            text: bytes = request.text
            spans: Spans = ()
            if request.literal_spans is not None:
                spans = read_spans(request.literal_spans, len(text))
            if sight:
                text, spans = sight.expand_text(text, pictures, spans)
            tokens = self._prompts.encode(text, is_cancelled, spans=spans)
        else:
            assert request.token_ids is not None
            if request.literal_spans is not None:
                raise InvalidValue("Spans are parts of text_input, which is not there.", "literal_spans")
            ids = sight.expand_tokens(request.token_ids, pictures) if sight else request.token_ids
            tokens = self._prompts.check(ids)
        return tokens, sight.look(tokens, pictures, is_cancelled) if sight and pictures else None

    def grammar(self, structure: Structure) -> "Future[CompiledGrammar]":
        """Have a structure compiled. Raises `UnsupportedOption` where the model has no use for one."""
        if self._grammars is None:
            raise UnsupportedOption("This model cannot enforce a structure.", "structured_outputs")
        return self._grammars.compile(structure)

    def _lane(self, request: Request) -> ThreadPoolExecutor:
        if request.images:
            return self._shown
        if len(request.text or b"") > _SHORT_BYTES:
            return self._long
        return self._short

    def tokens_together(self) -> int:
        """How many tokens of a row travel in one response: so many that there is about one for each step."""
        return max(1, self._engine.figures.rows_active // _ROWS_PER_TOKEN)

    def submit(self, generation: Generation) -> None:
        """Hand a generation to the engine. Raises `GenerationError`."""
        self._engine.submit(generation)

    def is_closed(self) -> bool:
        """Whether the desk is being closed, and answers what is open itself."""
        return self._closed

    def cancel(self, generation: Generation) -> None:
        """Have the engine end a generation."""
        self._engine.cancel(generation)

    def count_cancelled(self) -> None:
        """A client has gone; only the watching thread says so."""
        self._engine.figures.requests_cancelled += 1

    def post(self, key: int, errand: Callable[[], None]) -> None:
        """Have a sender thread do something for a request."""
        self._outbox.post(key, errand)

    def forget(self, key: int) -> None:
        """A request is about to have its last response."""
        self._watch.remove(key)
        with self._lock:
            self._open.pop(key, None)
