"""What the layouts of other people's models share: how their texts grow, how they stop, and how they fail."""

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
from gateway.triton.client import ModelConfig
from gateway.triton.tensors import Tensor

_REPLACEMENT = "\ufffd"

# How the caller calls what we call otherwise.
_OPENAI_NAMES = {"structured_outputs": "response_format", "prompt_logprobs": "echo"}


# Values that ask for nothing.
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
    raise UnsupportedOption("This model takes its prompt as text, not as token ids.", param="prompt")


def reject_unsupported_options(sampling: Sampling, carried: Iterable[str]) -> None:
    """Raise `UnsupportedOption`, naming OpenAI's parameter, for the first option that is given and not `carried`."""
    for field in fields(sampling):
        value = getattr(sampling, field.name)
        if field.name not in carried and value is not None and value not in (field.default, _NEUTRAL.get(field.name)):
            name = _OPENAI_NAMES.get(field.name, field.name)
            raise UnsupportedOption(f"How this model is served cannot carry the option '{name}'.", param=name)


def one_request_per_answer(request: Complete, *, varied: bool) -> list[Complete]:
    """Return a request for each answer, for the layouts of TensorRT-LLM; `varied` where they carry seeds and `top_p`.

    The runtime takes the likeliest token where nothing says otherwise, and the same seed for every request: answers
    that are asked for by themselves would all be the same.
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
    """Those inputs of a layout that this model has, with the datatype that is sent."""
    return frozenset(name for name, datatype in options.items() if config.inputs.get(name) == datatype)


def fit_tensors(tensors: Iterable[Tensor], config: ModelConfig) -> list[Tensor]:
    """Return those that the model has, each with as many dimensions as it declares: its batch, or what its `dims` say.

    The tensors given have one dimension.
    """
    usual = 2 if config.max_batch_size else 1
    return [
        _shaped(tensor, config.ranks.get(tensor.name, usual))
        for tensor in tensors
        if config.inputs.get(tensor.name) == tensor.datatype
    ]


def _shaped(tensor: Tensor, rank: int) -> Tensor:
    more = (1,) * (rank - len(tensor.shape))
    return Tensor(tensor.name, tensor.datatype, (*more, *tensor.shape), tensor.data) if more else tensor


DRAIN_RESPONSES = 8
"""Responses that are awaited after all of an answer is told, before the model is told to stop."""


async def limit_tokens(
    events: AsyncGenerator[TextEvent], request: Complete, *, echoed: int
) -> AsyncGenerator[TextEvent]:
    """End answers after `max_tokens`, for a model that cannot be told: each response has one token at least.

    `echoed` is how many events of each answer have no more than the prompt. What the model goes on to send is awaited
    for `DRAIN` more events: a stream that is given up while the model ends it can end Triton 2.51 with a segmentation
    fault.
    """
    limit = request.sampling.max_tokens or 0
    left = dict.fromkeys(range(request.sampling.n), limit)
    free = dict.fromkeys(left, echoed)
    draining, cut = DRAIN_RESPONSES, False
    async with aclosing(events):
        async for event in events:
            if event is EMPTY_DELTA or (not cut if isinstance(event, Usage) else event.index in left):
                yield event  # but no counts of more than was told
            if not left:
                draining -= 1
                if not draining:
                    return
            if event is EMPTY_DELTA or isinstance(event, Usage) or event.index not in left:
                continue
            if isinstance(event, Finish):
                del left[event.index]
            elif free[event.index]:
                free[event.index] -= 1
            else:
                left[event.index] -= event.tokens or bool(event.text)
                if left[event.index] <= 0:
                    del left[event.index]
                    cut = True
                    yield Finish(event.index, "length")


def explain(error: GatewayError) -> GatewayError:
    """Put the failure of a model that knows none of our codes in the caller's terms."""
    return third_party_errors.explain(error)


class AnswerText:
    """One answer on its way from a model's texts to what is shown: `feed` each text, then `finish`.

    `grows` says whether each text is the whole answer so far or what was added; None leaves that to the texts
    themselves, see `_Unsaid`. Stop strings are found and cut here, whatever the model makes of them.
    """

    def __init__(self, grows: TextMode | None, stop: tuple[str, ...]) -> None:
        self._deltas = _DeltaExtractor(grows)
        # A model that sends what was added may cut it inside a character.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace") if grows == "delta" else None
        self._stop = stop
        self._held_back = ""
        self.stopped = False
        """Whether a stop string has come."""

    def feed(self, said: bytes) -> str:
        """Return what can be shown now."""
        text = self._decoder.decode(said) if self._decoder else said.decode(errors="replace")
        return self._show(self._deltas.feed(text))

    def finish(self) -> str:
        """Return what was held back."""
        cut = self._deltas.feed(self._decoder.decode(b"", final=True)) if self._decoder else ""
        rest = self._show(cut + self._deltas.finish())
        held, self._held_back = self._held_back, ""
        return rest if self.stopped else rest + held

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
    """How much of the end of `text` may be the beginning of `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)


class _DeltaExtractor:
    """Turns texts that are whole or added, whichever it is, into what was added.

    A text that does not begin with the one before it was added. Of the texts that do, a single one proves little
    ("1" and then "10" may be 110), so until two in a row have each begun with the one before and been longer, only
    what both readings share is shown. An answer that ends before that is read as whole texts, as the published
    llmapi model sends them: its last text often repeats the one before.
    """

    def __init__(self, grows: TextMode | None) -> None:
        self._mode = grows
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
        # A character whose last bytes have not come yet is replaced by the one that it is, later.
        whole = self._last.rstrip(_REPLACEMENT)
        return whole if self._mode == "cumulative" else _common_prefix(whole, self._concatenated)

    def _emit(self, known: str) -> str:
        # What was said cannot be unsaid where a model takes back the beginning of a stop string.
        unsaid = known[self._num_emitted :]
        self._num_emitted = max(self._num_emitted, len(known))
        return unsaid


def _common_prefix(one: str, other: str) -> str:
    """How both begin."""
    differ = (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return one[: next(differ, min(len(one), len(other)))]


def max_answer_tokens(sampling: Sampling, card: TextCard) -> int | None:
    """The most tokens of an answer: the caller's, else the model's `max_tokens`, else its whole context.

    The runtime cuts the last to what the prompt leaves: `LlmRequest::validate` in TensorRT-LLM's
    cpp/tensorrt_llm/batch_manager/llmRequest.cpp, and `_check_arguments` in tensorrt_llm/llmapi/llm.py.
    """
    if sampling.max_tokens is not None:
        if not sampling.max_tokens:
            raise UnsupportedOption("This model's answers have one token at least.", param="max_tokens")
        if sampling.max_tokens > 2**31 - 1:
            raise InvalidRequest("'max_tokens' is too large for this model.", param="max_tokens")
        return sampling.max_tokens
    return card.default_max_tokens
