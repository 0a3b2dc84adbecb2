"""Code that the signatures of third-party models share: options, lengths, growing texts and stop strings."""

import codecs
import secrets
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import fields, replace

from gateway.errors import GatewayError, InvalidRequest, UnsupportedOption
from gateway.model_card.card import TextCard, TextMode
from gateway.operations import complete
from gateway.operations.complete import Complete
from gateway.operations.text import EMPTY_DELTA, Finish, Sampling, TextEvent, Usage
from gateway.signatures import third_party_errors
from gateway.triton.model_config import ModelConfig
from gateway.triton.tensors import Tensor

_REPLACEMENT = "\ufffd"

# Fields of `Sampling` whose OpenAI parameter has another name.
_OPENAI_NAMES = {"structured_outputs": "response_format", "prompt_logprobs": "echo"}

# Values that change nothing.
_NEUTRAL = {
    "top_p": 1,
    "min_p": 0,
    "min_tokens": 0,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "repetition_penalty": 1,
    "logit_bias": {},
}


def text_prompt(request: Complete) -> str:
    """Return the prompt as text. Raises `UnsupportedOption` for token ids."""
    if isinstance(request.prompt, str):
        return request.prompt
    raise UnsupportedOption("This model requires a text prompt; token ids are not supported.", param="prompt")


def reject_unsupported_options(sampling: Sampling, carried: Iterable[str]) -> None:
    """Raise `UnsupportedOption`, naming OpenAI's parameter, for the first option that is given and not `carried`."""
    for field in fields(sampling):
        value = getattr(sampling, field.name)
        if field.name not in carried and value is not None and value not in (field.default, _NEUTRAL.get(field.name)):
            name = _OPENAI_NAMES.get(field.name, field.name)
            raise UnsupportedOption(f"This model does not support the option '{name}'.", param=name)


def one_request_per_answer(request: Complete, *, varied: bool) -> list[Complete]:
    """Return a request for each answer, for a model of TensorRT-LLM; `varied` where it takes seeds and `top_p`.

    By default the runtime takes the likeliest token and uses one seed for all requests, so that all answers would be
    the same. Each request therefore gets a seed of its own and, where the caller sets no sampling option, `top_p` 1.
    """
    sampling = request.sampling
    if sampling.n == 1:
        return [request]
    if not varied:
        return complete.split_answers(request)
    if sampling.temperature is None and sampling.top_k is None and sampling.top_p is None:
        request = replace(request, sampling=replace(sampling, top_p=1.0))
    return complete.split_answers(request, secrets.randbits(62))


def declared_inputs(config: ModelConfig, options: Mapping[str, str]) -> frozenset[str]:
    """Return the names of `options` that the model declares with the datatype that is sent."""
    return frozenset(name for name, datatype in options.items() if config.inputs.get(name) == datatype)


def fit_tensors(tensors: Iterable[Tensor], config: ModelConfig) -> list[Tensor]:
    """Return the tensors that the model declares, each with as many dimensions as it declares, 1 for each added one.

    The tensors given have one dimension.
    """
    default_rank = 2 if config.max_batch_size else 1
    return [
        _shaped(tensor, config.ranks.get(tensor.name, default_rank))
        for tensor in tensors
        if config.inputs.get(tensor.name) == tensor.datatype
    ]


def _shaped(tensor: Tensor, rank: int) -> Tensor:
    added = (1,) * (rank - len(tensor.shape))
    return Tensor(tensor.name, tensor.datatype, (*added, *tensor.shape), tensor.data) if added else tensor


DRAIN_RESPONSES = 8
"""Responses that are read after the last event of an answer, before the request is cancelled."""


async def limit_tokens(
    events: AsyncGenerator[TextEvent], request: Complete, *, echoed: int
) -> AsyncGenerator[TextEvent]:
    """End answers after `max_tokens`, for a model that takes no such input. Each response counts as one token at least.

    `echoed` is the number of events at the beginning of each answer that have only the prompt. Up to `DRAIN_RESPONSES`
    further events are read and dropped: cancelling a stream while the model ends it can crash Triton 2.51 with a
    segmentation fault.
    """
    limit = request.sampling.max_tokens or 0
    tokens_left = dict.fromkeys(range(request.sampling.n), limit)
    prompt_events = dict.fromkeys(tokens_left, echoed)
    draining, was_cut = DRAIN_RESPONSES, False
    async with aclosing(events):
        async for event in events:
            if event is EMPTY_DELTA or (not was_cut if isinstance(event, Usage) else event.index in tokens_left):
                yield event  # no usage after a cut: it would count tokens that the caller does not get
            if not tokens_left:
                draining -= 1
                if not draining:
                    return
            if event is EMPTY_DELTA or isinstance(event, Usage) or event.index not in tokens_left:
                continue
            if isinstance(event, Finish):
                del tokens_left[event.index]
            elif prompt_events[event.index]:
                prompt_events[event.index] -= 1
            else:
                tokens_left[event.index] -= event.tokens or bool(event.text)
                if tokens_left[event.index] <= 0:
                    del tokens_left[event.index]
                    was_cut = True
                    yield Finish(event.index, "length")


def explain(error: GatewayError) -> GatewayError:
    """Return a failure of TensorRT-LLM or vLLM in the caller's terms.

    Their messages have no error codes: a caller's mistake is recognised by its wording, and gets the caller's field.
    """
    return third_party_errors.explain(error)


class AnswerText:
    """Turns the texts of a model's responses into the deltas of one answer: `feed` each text, then `finish`.

    `mode` says if each text is the whole answer so far or a delta; None: `_DeltaExtractor` finds out. The answer ends
    at the first stop string, even if the model does not stop there.
    """

    def __init__(self, mode: TextMode | None, stop: tuple[str, ...]) -> None:
        self._deltas = _DeltaExtractor(mode)
        # A model that sends deltas may cut them inside a character.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace") if mode == "delta" else None
        self._stop = stop
        self._held_back = ""
        self.stopped = False
        """True once a stop string was found."""

    def feed(self, data: bytes) -> str:
        """Take the text of the next response, UTF-8; return the delta that is certain now."""
        text = self._decoder.decode(data) if self._decoder else data.decode(errors="replace")
        return self._show(self._deltas.feed(text))

    def finish(self) -> str:
        """Return the text that was held back, at the end of the answer."""
        cut = self._deltas.feed(self._decoder.decode(b"", final=True)) if self._decoder else ""
        rest = self._show(cut + self._deltas.finish())
        held_back, self._held_back = self._held_back, ""
        return rest if self.stopped else rest + held_back

    def _show(self, added: str) -> str:
        if self.stopped:
            return ""
        text = self._held_back + added
        ends = [at for stop in self._stop if (at := text.find(stop)) >= 0]
        if ends:
            self.stopped, self._held_back = True, ""
            return text[: min(ends)]
        keep = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held_back = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Return how many characters at the end of `text` are the beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)


class _DeltaExtractor:
    """Turns texts into deltas, and detects if they are cumulative or already deltas.

    A text that does not begin with the previous one is a delta. A text that begins with it proves little: "1" and then
    "10" may mean "10" or "110". So until two texts in a row have extended the previous one, only the characters that
    both interpretations share are emitted. An answer that ends before that counts as cumulative, the mode of the
    published llmapi model, whose last text often repeats the previous one.
    """

    def __init__(self, mode: TextMode | None) -> None:
        self._mode = mode
        self._last = ""
        self._concatenated = ""
        self._num_emitted = 0
        self._num_extensions = 0

    def feed(self, text: str) -> str:
        last, self._last = self._last, text
        self._concatenated += text
        if self._mode is None:
            whole = last.rstrip(_REPLACEMENT)
            if not text.startswith(whole):
                self._mode = "delta"
            elif whole and len(text) > len(last):
                self._num_extensions += 1
                if self._num_extensions == 2:
                    self._mode = "cumulative"
        return self._emit(self._certain_text())

    def finish(self) -> str:
        whole = self._concatenated if self._mode == "delta" else self._last
        return self._emit(whole)

    def _certain_text(self) -> str:
        if self._mode == "delta":
            return self._concatenated
        # The replacement character at the end may stand for a character whose last bytes are still to come.
        whole = self._last.rstrip(_REPLACEMENT)
        return whole if self._mode == "cumulative" else _common_prefix(whole, self._concatenated)

    def _emit(self, known: str) -> str:
        # A model may take back the beginning of a stop string, when it has been emitted already.
        delta = known[self._num_emitted :]
        self._num_emitted = max(self._num_emitted, len(known))
        return delta


def _common_prefix(one: str, other: str) -> str:
    """Return the longest common prefix of both."""
    differ = (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return one[: next(differ, min(len(one), len(other)))]


def max_answer_tokens(sampling: Sampling, card: TextCard) -> int | None:
    """Return the most tokens of an answer: the caller's limit, else the card's `max_tokens`, else its context length.

    Raises `UnsupportedOption` for 0 and `InvalidRequest` for a number beyond int32. The runtime shortens a whole
    context to what the prompt leaves: `LlmRequest::validate` in TensorRT-LLM's
    cpp/tensorrt_llm/batch_manager/llmRequest.cpp, and `_check_arguments` in tensorrt_llm/llmapi/llm.py.
    """
    if sampling.max_tokens is not None:
        if not sampling.max_tokens:
            raise UnsupportedOption("This model's answers have one token at least.", param="max_tokens")
        if sampling.max_tokens > 2**31 - 1:
            raise InvalidRequest("'max_tokens' is too large for this model.", param="max_tokens")
        return sampling.max_tokens
    return card.default_max_tokens
