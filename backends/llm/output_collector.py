"""Turns the events of one request into responses: collects deltas until a response is worth sending.

It does not send by itself: `ActiveRequest` has a sender thread call `flush`. It knows neither Triton nor tensors.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from backends.llm.engine import Delta, Event, Logprobs, PromptExpanded
from backends.llm.logprobs_json import CumulativeLogprobs
from backends.llm.sampling_params import SamplingParams
from backends.serving.errors import GenerationError

UNFINISHED = "None"
"""The finish reason of an unfinished answer, as Triton's vLLM backend writes it."""


@dataclass(frozen=True, slots=True)
class RequestOutput:
    """One response: the new text of each of the n answers. `num_tokens` counts the new tokens of all answers together.

    `logprobs` is empty unless log probabilities are requested. `cumulative_logprobs`, the sum over each whole answer so
    far, is empty unless requested.
    """

    texts: tuple[str, ...]
    finish_reasons: tuple[str, ...]
    num_tokens: int
    logprobs: tuple[tuple[Logprobs, ...], ...] = ()
    cumulative_logprobs: tuple[float, ...] = ()


class OutputSender(Protocol):
    """Sends responses to one client."""

    def send(self, answer: RequestOutput, num_prompt_tokens: int, *, final: bool) -> None:
        """Send one response; `final` marks the last."""

    def fail(self, error: GenerationError) -> None:
        """Send the last response: an error."""


class OutputCollector:
    """Collects the events of one request. Events that arrive while a response is being sent are merged into the next.

    If many sequences run, several tokens share a response: a response costs Triton, the gateway and the client half a
    millisecond or more of the cores that the engine needs. The first token and the last are sent without delay.

    Several threads may call `add`; one thread at a time calls `flush`.
    """

    def __init__(self, responder: OutputSender, *, stream: bool, together: Callable[[], int] = lambda: 1) -> None:
        """With `stream`, a response is due for every `together()` tokens; otherwise one response carries all text."""
        self._sender = responder
        self._stream = stream
        self._tokens_per_response = together
        self._has_sent = False
        self._lock = threading.Lock()
        self._texts: list[list[str]] = []
        self._reasons: list[str] = []
        self._logprobs: list[list[Logprobs]] = []
        self._returns_logprobs = False
        self._cumulative_logprobs: CumulativeLogprobs | None = None
        self._num_prompt_tokens = 0
        self._num_tokens = 0
        self._num_unfinished = 1
        self._error: GenerationError | None = None
        self._finished = False
        self._flush_pending = False

    def begin(self, sampling: SamplingParams, num_prompt_tokens: int, prefix: str, *, summed: bool = False) -> bool:
        """Prepare for deltas, with `prefix` as the start of each answer. Return false if the request failed already.

        `sampling` holds the request's own parameters. With `summed`, each response has `cumulative_logprobs`.
        """
        num_answers, of_prompt = sampling.n, sampling.prompt_logprobs is not None
        with self._lock:
            self._texts = [[prefix] if prefix else [] for _ in range(num_answers)]
            self._reasons = [UNFINISHED] * num_answers
            self._logprobs = [[] for _ in range(num_answers)]
            self._returns_logprobs = sampling.logprobs is not None or of_prompt
            self._cumulative_logprobs = (
                CumulativeLogprobs(num_answers, num_prompt_tokens if of_prompt else 0) if summed else None
            )
            self._num_prompt_tokens = num_prompt_tokens
            self._num_unfinished = num_answers
            return self._error is None

    def add(self, event: Event) -> bool:
        """Add an event. Return whether the caller must have `flush` called."""
        with self._lock:
            if self._finished or self._error:
                return False
            if isinstance(event, Delta):
                self._num_tokens += event.num_tokens
                if event.text:
                    self._texts[event.index].append(event.text)
                if event.logprobs:
                    self._logprobs[event.index].extend(event.logprobs)
                if event.finish_reason:
                    self._reasons[event.index] = event.finish_reason
                    self._num_unfinished -= 1
            elif isinstance(event, PromptExpanded):
                self._num_prompt_tokens = event.num_tokens
                return False
            else:
                self._error = event.error
            if self._flush_pending or not (self._is_worth_sending(event) or self._error or not self._num_unfinished):
                return False
            self._flush_pending = self._has_sent = True
            return True

    def _is_worth_sending(self, event: Event) -> bool:
        if not self._stream or not isinstance(event, Delta):
            return False
        if event.finish_reason or not self._has_sent:
            return bool(event.text or event.finish_reason)
        return bool(event.text) and self._num_tokens >= self._tokens_per_response()

    def flush(self, ending: Callable[[], None]) -> None:
        """Send one response with all that was collected. `ending` is called before the last response is sent."""
        response = self._next_response()
        if response is None:
            return
        outcome, final = response
        if final:
            ending()
        if isinstance(outcome, RequestOutput):
            self._sender.send(outcome, self._num_prompt_tokens, final=final)
        else:
            self._sender.fail(outcome)

    def _next_response(self) -> tuple[RequestOutput | GenerationError, bool] | None:
        """Return the response or error to send and whether it is the last; None if the last was sent.

        Both are decided under the lock, because events may arrive at any moment.
        """
        with self._lock:
            if self._finished:
                return None
            self._flush_pending = False
            self._finished = self._error is not None or not self._num_unfinished
            if self._error:
                return self._error, True
            logprobs, sums = self._drain_logprobs() if self._returns_logprobs or self._cumulative_logprobs else ((), ())
            texts = tuple("".join(parts) for parts in self._texts)
            output = RequestOutput(texts, tuple(self._reasons), self._num_tokens, logprobs, sums)
            self._texts = [[] for _ in self._texts]
            self._num_tokens = 0
            return output, self._finished

    def _drain_logprobs(self) -> tuple[tuple[tuple[Logprobs, ...], ...], tuple[float, ...]]:
        """Return the entries collected for each answer, and the sums so far; each is empty unless requested."""
        entries = tuple(map(tuple, self._logprobs))
        self._logprobs = [[] for _ in entries]
        sums = self._cumulative_logprobs.add(entries) if self._cumulative_logprobs else ()
        return entries if self._returns_logprobs else (), sums
