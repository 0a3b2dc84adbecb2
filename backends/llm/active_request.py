"""One request from its arrival to its last response."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from backends.llm.engine import Event, Generation, GenerationFailed
from backends.llm.output_collector import OutputCollector, OutputSender
from backends.llm.sampling_params import SamplingParams
from backends.llm.structured_outputs.compiled_grammar import CompiledGrammar as CompiledGrammar
from backends.serving.errors import Cancelled, EngineFailed, GenerationError

if TYPE_CHECKING:
    from backends.llm.request_frontend import RequestFrontend


@dataclass(frozen=True, slots=True)
class Request:
    """One request as its tensors and request parameters describe it. Exactly one of `text` and `token_ids` is wanted.

    `sampling` is the JSON object of the tensor, or the request parameters where there is no such tensor. `images` are
    files in base64, in the order of their marks in the prompt. `literal_spans` are the parts of `text` in which special
    tokens are not recognised: first byte, last byte + 1 of each. `cumulative_logprob` asks for the sums of the answers'
    log probabilities.
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
        """Whether it may ask for a structure: so it is where the word stands anywhere in `sampling`."""
        return (b"structured_outputs" if isinstance(self.sampling, bytes) else "structured_outputs") in self.sampling


class ResponseSender(OutputSender, Protocol):
    """The way back to one client, who may go away."""

    def is_cancelled(self) -> bool:
        """Whether the client has cancelled; takes a round trip to the server."""


class ActiveRequest:
    """One request from its arrival to its last response."""

    def __init__(self, key: int, request: Request, client: ResponseSender, desk: "RequestFrontend") -> None:
        """`key` is what the desk knows the request by."""
        self.key = key
        self._request: Request | None = request
        self._frontend = desk
        self._collector = OutputCollector(client, stream=request.stream, together=desk.tokens_per_response)
        self._grammar_future: Future[CompiledGrammar] | None = None
        self._generation: Generation | None = None
        self._cancelled = False

    def compile(self) -> None:
        """Have the structure compiled that the answers must have, and go on when it is."""
        request = self._request
        if self._cancelled or request is None:
            return
        with self._reporting_errors():
            sampling = self._frontend.sampling(request)
            if sampling.structured_outputs is None:
                self._frontend.schedule_preparation(request, self, lambda: self.begin(sampling))
                return
            compiled = self._grammar_future = self._frontend.compile_grammar(sampling.structured_outputs)
            if compiled.done() and self._frontend.has_short_prompt(
                request
            ):  # it was kept: another thread would take time to wake
                self.begin(sampling, compiled)
                return
            if self._cancelled:
                compiled.cancel()
            compiled.add_done_callback(partial(self._on_grammar_compiled, sampling))

    def _on_grammar_compiled(self, sampling: SamplingParams, compiled: "Future[CompiledGrammar]") -> None:
        if (request := self._request) and not compiled.cancelled():
            self._frontend.schedule_preparation(request, self, lambda: self.begin(sampling, compiled))

    def begin(self, sampling: SamplingParams | None = None, compiled: "Future[CompiledGrammar] | None" = None) -> None:
        """Tokenise and submit; runs in a thread for prompts."""
        # The exchange lives until the last token; its pictures may have 20 MB each.
        request, self._request, self._grammar_future = self._request, None, None
        if self._cancelled or request is None:
            return
        with self._reporting_errors():
            sampling = sampling or self._frontend.sampling(request)
            grammar = compiled.result() if compiled else None
            chosen = sampling
            if request.cumulative_logprob and sampling.logprobs is None:
                chosen = replace(sampling, logprobs=0)  # the sum wants those of the tokens themselves
            generation, prefix = self._frontend.build_generation(
                request, chosen, grammar, self._on_event, self._is_abandoned
            )
            if self._collector.begin(sampling, len(generation.prompt), prefix, summed=request.cumulative_logprob):
                self._frontend.submit(generation)
            self._generation = generation
            if self._cancelled:  # while the prompt was tokenised or submitted
                self._frontend.cancel(generation)

    @contextmanager
    def _reporting_errors(self) -> Iterator[None]:
        """Answer with whatever goes wrong."""
        try:
            yield
        except GenerationError as error:
            if not (isinstance(error, Cancelled) and self._frontend.is_closed()):
                self.fail(error)
        except Exception as error:  # nobody else would answer
            self.fail(EngineFailed(f"The request could not be prepared: {str(error)[:500]}"))

    def _is_abandoned(self) -> bool:
        """Whether nobody wants the prompt any more; where the desk closes, it answers what is open."""
        return self._cancelled or self._frontend.is_closed()

    def cancel(self) -> None:
        """The client has gone; called by the watching thread."""
        self._frontend.count_cancelled()
        self._cancelled = True
        self._request = None
        if compiled := self._grammar_future:
            compiled.cancel()
        if self._generation:
            self._frontend.cancel(self._generation)
        else:
            self.fail(Cancelled("The request was cancelled."))

    def fail(self, error: GenerationError) -> None:
        """End with an error, unless the last response is on its way already."""
        self._on_event(GenerationFailed(error))

    def _on_event(self, event: Event) -> None:
        if self._collector.add(event):
            self._frontend.post(self.key, self._flush)

    def _flush(self) -> None:
        self._collector.flush(lambda: self._frontend.untrack(self.key))
