"""Turns failures of TensorRT-LLM and vLLM that are the caller's mistakes into errors that name the caller's field."""

import math
import re
from dataclasses import fields, replace

from gateway.errors import ContextLengthExceeded, GatewayError, InvalidRequest, ModelFailed, UnsupportedOption
from gateway.model_card.card import TextCard
from gateway.operations.complete import Complete
from gateway.operations.text import Sampling

# C++ runtime (cpp/tensorrt_llm/batch_manager/llmRequest.cpp), LLM API (`_check_arguments` in
# tensorrt_llm/llmapi/llm.py, `_deduce_max_tokens` in tensorrt_llm/executor/base_worker.py), vLLM.
_TOO_LONG = re.compile(
    r"(?:prompt|encoder) length[^()]{0,40}\([\d.+ ]+\).{0,80}(?:exceeds maximum|should not exceed)"
    r"|`?default_max_tokens`? \(-?\d+\) must be greater than 0"
    r"|prompt \(length \d+\) is longer than the maximum model length"
    r"|maximum context length is \d+",
    re.IGNORECASE,
)
# The same for prompt and answer together: an engine of TensorRT behind the LLM API (`_check_arguments`).
_NO_TOKENS_LEFT = re.compile(
    r"prompt length \(([\d.]+)\).{0,20}query length \((\d+)\).{0,20}max_tokens \(\d+\).{0,40}max_seq_len \((\d+)\)",
    re.IGNORECASE,
)
# `SamplingParams._validate` in tensorrt_llm/sampling_params.py.
_OUT_OF_RANGE = re.compile(r"require [^,]{1,60}, got (\w+)=")
# `_deduce_max_tokens`, and `Request.validate` in tensorrt_llm_bls/1/lib/decode.py.
_MAX_TOKENS_NOT_POSITIVE = re.compile(r"`?max_tokens`?(?: \(-?\d+\))? must be (?:a single value > 0|greater than 0)")

# cpp/tensorrt_llm/executor/executorImpl.cpp
_NO_GUIDED_DECODING = re.compile(r"GuidedDecod\w+, but \w+ is not setup")

_OPTIONS = frozenset(field.name for field in fields(Sampling))

# A frame of a traceback.
_FRAME = re.compile(r"\n  File [^\n]*(?:\n    [^\n]*)*\n(?=\S)")
# The name of an exception's class, as Python writes it before the message.
_RAISED = re.compile(r"[A-Za-z_][\w.]*: ")
_CLASS = re.compile(r"(?:(?<=: )|^)(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception)(?:: |$)")
# Triton's prefix of a failure in an ensemble's step.
_STEP = re.compile(r"in ensemble '[^'\n]*', ")
# The place in the C++ runtime where an exception was thrown, and the stack after it.
_PLACE = re.compile(r" \(/[^\s()]+:\d+\)(?=\s|$)|\n\d+ +0x[0-9a-f]+[^\n]*")

_MAX_HALF_CHARACTERS = 4096
"""Characters that are searched at the beginning and at the end of a message."""


def explain(error: GatewayError) -> GatewayError:
    """Return an error that names the caller's field for a caller's mistake, and every other error unchanged."""
    if not isinstance(error, ModelFailed):
        return error
    message = error.message = clean_message(error.message)
    if _NO_TOKENS_LEFT.search(message):
        return ContextLengthExceeded(message, param="max_tokens" if remaining_tokens(message) else "prompt")
    if _TOO_LONG.search(message):
        return ContextLengthExceeded(message, param="prompt")
    if _MAX_TOKENS_NOT_POSITIVE.search(message):
        return InvalidRequest(message, param="max_tokens")
    if _NO_GUIDED_DECODING.search(message):
        words = "This model does not support structured outputs: its engine has no guided decoding backend."
        return UnsupportedOption(words, param="structured_outputs")
    wrong = _OUT_OF_RANGE.search(message)
    if wrong and wrong[1] in _OPTIONS:
        return InvalidRequest(message, param=wrong[1])
    return error


def retry_request(request: Complete, error: GatewayError, card: TextCard) -> Complete | None:
    """Return the request with a `max_tokens` that fits, after the model refused the default for its length.

    None if the caller set `max_tokens`, which is never changed, and if the message has no token counts.
    """
    left = remaining_tokens(clean_message(error.message)) if isinstance(error, ModelFailed) else 0
    if not left or request.sampling.max_tokens is not None:
        return None
    if card.max_tokens is not None:
        left = min(left, card.max_tokens)
    return replace(request, sampling=replace(request.sampling, max_tokens=left))


def remaining_tokens(message: str) -> int:
    """Return the tokens that a refusal says the prompt leaves; 0 if it has no token counts or leaves none."""
    found = _NO_TOKENS_LEFT.search(message)
    if found is None:
        return 0
    prompt, query, most = found.groups()
    return max(int(most) - int(query) - math.ceil(float(prompt)), 0)


def clean_message(message: str) -> str:
    """Return the message of a failure without places in the server's code and names of Python's classes."""
    if len(message) > 2 * _MAX_HALF_CHARACTERS:
        message = f"{message[:_MAX_HALF_CHARACTERS]}…{message[-_MAX_HALF_CHARACTERS:]}"
    message = _STEP.sub("", message, count=1) if _STEP.match(message) else message
    if message.lstrip().startswith("Traceback"):
        # tensorrt_llm_bls sends the whole traceback. The last exception of a chain counts.
        *_, raised = _FRAME.split("\n" + message.strip())
        message = _RAISED.sub("", raised, count=1) if _RAISED.match(raised) else raised
    return _CLASS.sub("", _PLACE.sub("", message)).strip() or "The model failed without a message."
