"""One request for text from its admission to its last response."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from backends.llm.engine import Event, Generation, GenerationFailed
from backends.llm.output_collector import OutputCollector, OutputSender
from backends.llm.sampling_params import SamplingParams
from backends.llm.structured_outputs.compiled_grammar import CompiledGrammar
from backends.serving.active_request import ActiveRequest, ResponseSender
from backends.serving.errors import Cancelled, GenerationError

if TYPE_CHECKING:
    from backends.llm.request_frontend import LLMFrontend


@dataclass(frozen=True, slots=True)
class Request:
    """The tensors and request parameters of one request, unchecked. Exactly one of `text` and `token_ids` is required.

    `sampling` is the JSON object of the tensor, or the request parameters if that tensor was not sent. `images` are
    base64 files, in the order of their placeholders in the prompt. `literal_spans` are the parts of `text` in which
    special tokens are not recognised: the offsets of the first byte and behind the last byte of each.
    `cumulative_logprob` asks for the sum of the log probabilities of each answer.
    """

    text: bytes | None
    token_ids: npt.NDArray[np.integer[Any]] | None
    stream: bool
    exclude_input: bool
    sampling: bytes | Mapping[str, Any]
    images: tuple[bytes, ...] = ()
    literal_spans: npt.NDArray[np.integer[Any]] | None = None
    cumulative_logprob: bool = False

    @property
    def mentions_structured_outputs(self) -> bool:
        """True if the request may ask for structured outputs: the word occurs anywhere in `sampling`."""
        return (b"structured_outputs" if isinstance(self.sampling, bytes) else "structured_outputs") in self.sampling


class TextSender(OutputSender, ResponseSender, Protocol):
    """Sends the responses of one request."""


class ActiveGeneration(ActiveRequest["LLMFrontend", TextSender]):
    """One request from its admission to its last response.

    Outputs pass through an `OutputCollector`, which decides which response is the last.
    """

    def __init__(self, key: int, request: Request, sender: TextSender, frontend: "LLMFrontend") -> None:
        super().__init__(key, sender, frontend)
        self._request: Request | None = request
        self._collector = OutputCollector(sender, stream=request.stream, together=frontend.tokens_per_response)
        self._grammar_future: Future[CompiledGrammar] | None = None
        self._generation: Generation | None = None

    def start(self) -> None:
        """Have the structure compiled that the request may ask for, then the prompt tokenised."""
        request = self._request
        if request is None:
            return
        if request.mentions_structured_outputs:
            self.run_in_pool(self._frontend.structured_outputs_pool, self._compile_grammar)
        else:
            self._schedule(request, self._begin)

    def cancel(self) -> None:
        """Cancel the generation because the client has disconnected; the engine answers where it has begun."""
        self._frontend.count_cancelled()
        self.stopped = True
        self.release()
        if self._generation is None:
            self.fail(Cancelled("The request was cancelled."))

    def fail(self, error: GenerationError) -> None:
        """Send an error as the last response, unless the last response is on its way."""
        self._on_event(GenerationFailed(error))

    def release(self) -> None:
        """Drop the inputs, and cancel the compilation of the grammar and the generation."""
        self._request = None
        if grammar_future := self._grammar_future:
            grammar_future.cancel()
        if generation := self._generation:
            self._frontend.engine.cancel(generation)

    def _schedule(self, request: Request, step: Callable[[], None]) -> None:
        self.run_in_pool(self._frontend.pool_for(request), step)

    def _compile_grammar(self) -> None:
        """Have the grammar of the answers compiled, and continue once it is."""
        request = self._request
        if request is None:
            return
        sampling = self._frontend.sampling(request)
        if sampling.structured_outputs is None:
            self._schedule(request, lambda: self._begin(sampling))
            return
        compiled = self._grammar_future = self._frontend.compile_grammar(sampling.structured_outputs)
        if compiled.done() and self._frontend.has_short_prompt(request):
            # The grammar was cached; waking another thread would take longer than tokenising the prompt.
            self._begin(sampling, compiled)
            return
        if self.stopped:
            compiled.cancel()
        compiled.add_done_callback(partial(self._on_grammar_compiled, sampling))

    def _on_grammar_compiled(self, sampling: SamplingParams, compiled: "Future[CompiledGrammar]") -> None:
        if (request := self._request) and not compiled.cancelled():
            self._schedule(request, lambda: self._begin(sampling, compiled))

    def _begin(self, sampling: SamplingParams | None = None, compiled: "Future[CompiledGrammar] | None" = None) -> None:
        """Tokenise the prompt and submit the generation."""
        # An active request lives until the last token; its images may have 20 MB each.
        request, self._request, self._grammar_future = self._request, None, None
        if self.stopped or request is None:
            return
        sampling = sampling or self._frontend.sampling(request)
        grammar = compiled.result() if compiled else None
        engine_sampling = sampling
        if request.cumulative_logprob and sampling.logprobs is None:
            engine_sampling = replace(sampling, logprobs=0)  # the sum needs those of the chosen tokens
        generation, prefix = self._frontend.build_generation(
            request, engine_sampling, grammar, self._on_event, self.is_abandoned
        )
        if self._collector.begin(sampling, len(generation.prompt), prefix, summed=request.cumulative_logprob):
            self._frontend.engine.submit(generation)
        self._generation = generation

    def _on_event(self, event: Event) -> None:
        if self._collector.add(event):
            self._frontend.post(self.key, self._flush)

    def _flush(self) -> None:
        self._collector.flush(lambda: self._frontend.remove(self.key))
