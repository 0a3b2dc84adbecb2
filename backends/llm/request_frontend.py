"""Requests for text: how a prompt becomes tokens, and a request a generation of the engine."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from backends.llm.active_request import ActiveGeneration, Request, TextSender
from backends.llm.engine import Engine, Event, Generation, Grammar, ImageInputs, TokenIds
from backends.llm.image_processor import ImageProcessor
from backends.llm.literal_tokenizer import LiteralSpans, parse_literal_spans
from backends.llm.prompt_tokenizer import PromptTokenizer
from backends.llm.sampling_params import (
    SamplingParams,
    StructuredOutputsParams,
    parse_sampling_params,
    sampling_params_from_request,
)
from backends.llm.structured_outputs.compiled_grammar import CompiledGrammar
from backends.llm.structured_outputs.grammar_compiler import GrammarCompiler
from backends.serving.errors import GenerationError, InvalidValue, Overloaded, UnsupportedOption
from backends.serving.request_frontend import RequestFrontend

_SHORT_PROMPT_BYTES = 16_384
"""Size up to which a prompt is tokenised within about a millisecond; longer prompts have their own thread."""
_SLOTS_PER_COALESCED_TOKEN = 4
"""Active rows for each token of a response: up to seven rows send each token by itself, 16 rows send four at a time,
ten responses a second on two cores."""


class LLMFrontend(RequestFrontend[Request, TextSender, ActiveGeneration]):
    """Turns requests into generations, and hands them to the engine."""

    def __init__(
        self,
        engine: Engine,
        prompts: PromptTokenizer,
        max_open: int,
        defaults: SamplingParams | None = None,
        grammars: GrammarCompiler | None = None,
        vision_processor: ImageProcessor | None = None,
    ) -> None:
        """Own the engine and `grammars`: `close` closes them. At most `max_open` requests are active at once.

        `defaults` are the sampling parameters of a request that sets none. A model without `vision_processor` refuses
        images, and one without `grammars` refuses structured outputs.
        """
        super().__init__(engine.stats)
        self.engine = engine
        self._image_processor = vision_processor
        self._defaults = defaults or SamplingParams()
        self._grammar_compiler = grammars
        self._prompt_tokenizer = prompts
        self._max_open = max_open
        self._short_prompt_pool = self.new_pool(1, "llm-prompts")
        self._long_prompt_pool = self.new_pool(1, "llm-long-prompts")
        # A schema of 256 KB takes 10 ms to read before it is compiled.
        self.structured_outputs_pool = self.new_pool(1, "llm-structures")
        # A large image takes many seconds to encode.
        self._image_pool = self.new_pool(1, "llm-images")

    def make_active(self, key: int, request: Request, sender: TextSender) -> ActiveGeneration:
        """Return the active request that `key` identifies; it has not started."""
        return ActiveGeneration(key, request, sender, self)

    def queue_error(self, active: ActiveGeneration) -> GenerationError | None:
        """Return `Overloaded` while `max_open` requests are active."""
        if self.active_size >= self._max_open:
            return Overloaded(f"{self.active_size} requests are open already; try again later.")
        return None

    def close_scheduler(self) -> None:
        """Fail every generation, and end the processes that compile grammars."""
        self.engine.close()
        if self._grammar_compiler:
            self._grammar_compiler.close()

    def pool_for(self, request: Request) -> ThreadPoolExecutor:
        """Return the thread that prepares a request: images, long prompts and short prompts have one each."""
        if request.images:
            return self._image_pool
        if len(request.text or b"") > _SHORT_PROMPT_BYTES:
            return self._long_prompt_pool
        return self._short_prompt_pool

    def has_short_prompt(self, request: Request) -> bool:
        """Return whether a request takes so little time to prepare that any thread may do it."""
        return self.pool_for(request) is self._short_prompt_pool

    def tokens_per_response(self) -> int:
        """Return how many tokens of an answer share a response: so many that each step sends about one response."""
        return max(1, self.engine.stats.rows_active // _SLOTS_PER_COALESCED_TOKEN)

    def sampling(self, request: Request) -> SamplingParams:
        """Return the sampling parameters of a request. Raises `GenerationError`."""
        if isinstance(request.sampling, bytes):
            return parse_sampling_params(request.sampling, self.engine.vocab_size, self._defaults, self.engine.adapters)
        return sampling_params_from_request(
            request.sampling, self.engine.vocab_size, self._defaults, self.engine.adapters
        )

    def build_generation(
        self,
        request: Request,
        sampling: SamplingParams,
        grammar: Grammar | None,
        sink: Callable[[Event], None],
        is_cancelled: Callable[[], bool],
    ) -> tuple[Generation, str]:
        """Return the generation of a request, and the text with which its answers begin. Raises `GenerationError`."""
        if self._image_processor is None and (count := len(request.images)):
            raise UnsupportedOption(f"This model takes no images, and the request has {count}.", "image")
        if (request.text is None) == (request.token_ids is None):
            raise InvalidValue("Exactly one of text_input and token_ids must be given.", "text_input")
        tokens, image_inputs = self._tokenize(request, is_cancelled)
        prefix = ""
        if not request.exclude_input:
            ids = request.token_ids
            text = (request.text or b"").decode("utf-8")
            prefix = text if ids is None else self._prompt_tokenizer.decode(ids.reshape(-1).astype(np.int64))
        if self.engine.structure_enforcement != "matcher":
            grammar = None  # compiled to bound its cost and to refuse it with the same reason as with every engine
        return Generation(tokens, sampling, sink, grammar, image_inputs), prefix

    def _tokenize(self, request: Request, is_cancelled: Callable[[], bool]) -> tuple[TokenIds, ImageInputs | None]:
        """Return the tokens of the prompt, and the features of its images if it has any."""
        vision = self._image_processor
        images = vision.open_images(request.images) if vision else ()
        if request.text is not None:
            text: bytes = request.text
            spans: LiteralSpans = ()
            if request.literal_spans is not None:
                spans = parse_literal_spans(request.literal_spans, len(text))
            if vision:
                text, spans = vision.expand_text(text, images, spans)
            tokens = self._prompt_tokenizer.encode(text, is_cancelled, spans=spans)
        else:
            assert request.token_ids is not None
            if request.literal_spans is not None:
                raise InvalidValue("Spans refer to text_input, which was not sent.", "literal_spans")
            ids = vision.expand_tokens(request.token_ids, images) if vision else request.token_ids
            tokens = self._prompt_tokenizer.validate_token_ids(ids)
        return tokens, vision.encode(tokens, images, is_cancelled) if vision and images else None

    def compile_grammar(self, structure: StructuredOutputsParams) -> "Future[CompiledGrammar]":
        """Have a structure compiled. Raises `UnsupportedOption` if the model supports no structured outputs."""
        if self._grammar_compiler is None or self.engine.structure_enforcement == "none":
            raise UnsupportedOption("This model cannot enforce a structure.", "structured_outputs")
        return self._grammar_compiler.compile(structure)
