"""Where requests come in: prompt, engine, replies and cancellation are brought together here.

The desk knows neither Triton nor tensors; `model.py` hands it what it read from them.
"""

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from backends.llm.active_request import ActiveRequest, Request, ResponseSender
from backends.llm.engine import Engine, Event, Generation, Grammar, ImageInputs, TokenIds
from backends.llm.literal_tokenizer import LiteralSpans, parse_literal_spans
from backends.llm.prompt_tokenizer import PromptTokenizer
from backends.llm.sampling_params import (
    SamplingParams,
    StructuredOutputsParams,
    parse_sampling_params,
    sampling_params_from_request,
)
from backends.llm.structured_outputs.compiled_grammar import CompiledGrammar as CompiledGrammar
from backends.llm.structured_outputs.grammar_compiler import GrammarCompiler
from backends.serving.cancellation import CancellationWatcher
from backends.serving.errors import (
    EngineFailed,
    GenerationError,
    InvalidValue,
    Overloaded,
    UnsupportedOption,
)
from backends.serving.senders import SenderThreads

if TYPE_CHECKING:
    from backends.llm.vision.processor import VisionProcessor

# Prompts up to this size are tokenised within a millisecond or so; longer ones have a thread of their own.
_SHORT_PROMPT_BYTES = 16_384
# With up to seven rows every token travels by itself; with 16, four do: ten responses a second on two cores.
_SLOTS_PER_COALESCED_TOKEN = 4


class RequestFrontend:
    """Takes requests, and sees to it that each of them is answered, with one last response and no more."""

    def __init__(
        self,
        engine: Engine,
        prompts: PromptTokenizer,
        max_open: int,
        defaults: SamplingParams | None = None,
        grammars: GrammarCompiler | None = None,
        sight: "VisionProcessor | None" = None,
    ) -> None:
        """Take over an engine: `close` closes it. More than `max_open` requests at once are refused as overloaded.

        `defaults` stand for what a request does not say. `grammars` are taken over too. `sight` is there for
        models that are shown pictures.
        """
        self._vision_processor = sight
        self._defaults = defaults or SamplingParams()
        self._grammar_compiler = grammars
        self._engine = engine
        self._prompt_tokenizer = prompts
        self._max_open = max_open
        self._keys = itertools.count()
        self._lock = threading.Lock()
        self._active_requests: dict[int, ActiveRequest] = {}
        self._closed = False
        self._senders = SenderThreads()
        self._cancellation = CancellationWatcher()
        self._short_prompt_pool = ThreadPoolExecutor(1, "llm-prompts")
        self._long_prompt_pool = ThreadPoolExecutor(1, "llm-long-prompts")
        # A schema of 256 KB takes 10 ms to read before it is compiled.
        self._structured_outputs_pool = ThreadPoolExecutor(1, "llm-structures")
        # A large picture takes many seconds to encode.
        self._image_pool = ThreadPoolExecutor(1, "llm-pictures")

    def add_request(self, request: Request, client: ResponseSender) -> None:
        """Begin to answer; returns at once."""
        exchange = ActiveRequest(next(self._keys), request, client, self)
        with self._lock:
            refusal: GenerationError | None = None
            if self._closed:
                refusal = EngineFailed("The model is being unloaded.")
            elif len(self._active_requests) >= self._max_open:
                refusal = Overloaded(f"{len(self._active_requests)} requests are open already; try again later.")
            else:
                self._active_requests[exchange.key] = exchange
        if refusal:
            client.fail(refusal)
            return
        self._cancellation.add(exchange.key, client.is_cancelled, exchange.cancel)
        if request.mentions_structured_outputs:
            self._submit_to_pool(self._structured_outputs_pool, exchange, exchange.compile)
        else:
            self.schedule_preparation(request, exchange, exchange.begin)

    def schedule_preparation(self, request: Request, exchange: ActiveRequest, begin: Callable[[], None]) -> None:
        """Have the prompt tokenised, and what `begin` does besides, in the thread for such prompts."""
        self._submit_to_pool(self._pool_for(request), exchange, begin)

    def has_short_prompt(self, request: Request) -> bool:
        """Whether its prompt may be tokenised in any thread."""
        return self._pool_for(request) is self._short_prompt_pool

    def _submit_to_pool(self, lane: ThreadPoolExecutor, exchange: ActiveRequest, do: Callable[[], None]) -> None:
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
        self._cancellation.close()
        for lane in (self._short_prompt_pool, self._long_prompt_pool, self._structured_outputs_pool, self._image_pool):
            lane.shutdown(cancel_futures=True)
        self._engine.close()
        if self._grammar_compiler:
            self._grammar_compiler.close()
        with self._lock:
            exchanges = list(self._active_requests.values())
        for exchange in exchanges:
            exchange.fail(EngineFailed("The model is being unloaded."))
        self._senders.close()

    def sampling(self, request: Request) -> SamplingParams:
        """The options of a request. Raises `GenerationError`."""
        if isinstance(request.sampling, bytes):
            return parse_sampling_params(request.sampling, self._engine.vocab_size, self._defaults)
        return sampling_params_from_request(request.sampling, self._engine.vocab_size, self._defaults)

    def build_generation(
        self,
        request: Request,
        sampling: SamplingParams,
        grammar: Grammar | None,
        sink: Callable[[Event], None],
        is_cancelled: Callable[[], bool],
    ) -> tuple[Generation, str]:
        """The generation a request asks for, and what its answers begin with. Raises `GenerationError`."""
        if self._vision_processor is None and (count := len(request.images)):
            raise UnsupportedOption(f"This model reads no pictures, and {count} came with the request.", "image")
        if (request.text is None) == (request.token_ids is None):
            raise InvalidValue("Exactly one of text_input and token_ids must be given.", "text_input")
        tokens, pictures = self._tokenize(request, is_cancelled)
        prefix = ""
        if not request.exclude_input:
            ids = request.token_ids
            text = (request.text or b"").decode("utf-8")
            prefix = text if ids is None else self._prompt_tokenizer.decode(ids.reshape(-1).astype(np.int64))
        return Generation(tokens, sampling, sink, grammar, pictures), prefix

    def _tokenize(self, request: Request, is_cancelled: Callable[[], bool]) -> tuple[TokenIds, ImageInputs | None]:
        """The tokens of the prompt, with what stands for its pictures."""
        sight = self._vision_processor
        pictures = sight.open_images(request.images) if sight else ()
        if request.text is not None:
            text: bytes = request.text
            spans: LiteralSpans = ()
            if request.literal_spans is not None:
                spans = parse_literal_spans(request.literal_spans, len(text))
            if sight:
                text, spans = sight.expand_text(text, pictures, spans)
            tokens = self._prompt_tokenizer.encode(text, is_cancelled, spans=spans)
        else:
            assert request.token_ids is not None
            if request.literal_spans is not None:
                raise InvalidValue("Spans are parts of text_input, which is not there.", "literal_spans")
            ids = sight.expand_tokens(request.token_ids, pictures) if sight else request.token_ids
            tokens = self._prompt_tokenizer.validate_token_ids(ids)
        return tokens, sight.encode(tokens, pictures, is_cancelled) if sight and pictures else None

    def compile_grammar(self, structure: StructuredOutputsParams) -> "Future[CompiledGrammar]":
        """Have a structure compiled. Raises `UnsupportedOption` where the model has no use for one."""
        if self._grammar_compiler is None:
            raise UnsupportedOption("This model cannot enforce a structure.", "structured_outputs")
        return self._grammar_compiler.compile(structure)

    def _pool_for(self, request: Request) -> ThreadPoolExecutor:
        if request.images:
            return self._image_pool
        if len(request.text or b"") > _SHORT_PROMPT_BYTES:
            return self._long_prompt_pool
        return self._short_prompt_pool

    def tokens_per_response(self) -> int:
        """How many tokens of a row travel in one response: so many that there is about one for each step."""
        return max(1, self._engine.stats.rows_active // _SLOTS_PER_COALESCED_TOKEN)

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
        self._engine.stats.requests_cancelled += 1

    def post(self, key: int, errand: Callable[[], None]) -> None:
        """Have a sender thread do something for a request."""
        self._senders.post(key, errand)

    def untrack(self, key: int) -> None:
        """A request is about to have its last response."""
        self._cancellation.remove(key)
        with self._lock:
            self._active_requests.pop(key, None)
