"""Turns failures of Triton's vLLM backend that are the caller's mistakes into errors that name the caller's field.

The backend reports every mistake as a failure without a code, so its messages are searched. They come from vLLM 0.6 to
0.33: vllm/sampling_params.py, vllm/v1/engine/{processor,input_processor}.py,
vllm/v1/structured_output/backend_{xgrammar,guidance,outlines,lm_format_enforcer}.py, vllm/multimodal; and of the
backend's own src/utils/request.py.
"""

import re
from dataclasses import fields

from gateway.errors import ContextLengthExceeded, GatewayError, InvalidRequest, ModelFailed, UnsupportedOption
from gateway.operations.text import Sampling

_PREFIX = "Error generating stream: "
"""The backend writes this before the message of an exception."""

# `TritonSamplingParams.from_dict` returns None for parameters that vLLM refuses, and writes the reason to its log only.
_REFUSED_PARAMETERS = "'NoneType' object has no attribute 'lora_name'"

_STRUCTURE = re.compile(
    r"Grammar error: "
    r"|Invalid (?:JSON )?grammar specification"
    r"|Failed to (?:transform|convert) (?:json schema|regex|choices|the grammar)"
    r"|JSON schema contains features not supported"
    r"|Error parsing regex: |Regex (?:uses unsupported|does not have a)|Error serializing (?:structured|guided)"
    r"|structured_outputs\.(?:grammar|json|regex|json_object) (?:cannot|must)"
    r"|Choice '.{0,400}' cannot be an empty list"
    r"|(?:backend|guided decoding|[Ss]tructured outputs?) (?:does not|doesn't|do not|is not|are not yet) support"
    r"|[Ss]tructured outputs (?:requires a tokenizer|are not yet supported)",
    re.DOTALL,
)
_IMAGES = re.compile(
    r"At most \d+ image\(s\) may be provided"
    r"|cannot identify image file|image file is truncated|Decompression\w*Bomb|exceeds limit of \d+ pixels"
    r"|not a multimodal model|does not support multimodal|multi-?modal(?:ity)? .{0,40}not supported"
    r"|Expected there to be \d+ prompt (?:placeholders|updates)|Failed to apply prompt replacement"
    r"|exceeds the pre-allocated encoder cache size"
)
_TOO_LONG = re.compile(r"prompt \(length \d+\).{0,80} longer than the maximum model length")
# Messages of `SamplingParams` about a range, and about a parameter that the release does not have.
_RANGE = re.compile(r"(\w+) must be .{0,100}, got ")
_UNKNOWN = re.compile(r"nexpected keyword argument '(\w+)'")
_OPTIONS = {**{field.name: field.name for field in fields(Sampling)}, "guided_decoding": "structured_outputs"}

_PARAM_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"Requested (?:sample|prompt) logprobs of -?\d+"), "logprobs"),
    (re.compile(r"in stop_token_ids contain out-of-vocab"), "stop_token_ids"),
    (re.compile(r"min_p (?:and|sampling).{0,60}not yet supported"), "min_p"),
    (re.compile(r"decoder prompt cannot be empty|Token id \d+ is out of vocabulary"), "prompt"),
    (_IMAGES, "messages"),
    (_STRUCTURE, "structured_outputs"),
)
_MAX_CHARACTERS = 4096
"""Characters of a message that are searched: it may repeat a whole schema."""


def explain(error: GatewayError) -> GatewayError:
    """Return an error that names the caller's field for a caller's mistake, and every other error unchanged."""
    if not isinstance(error, ModelFailed):
        return error
    error.message = error.message.removeprefix(_PREFIX)
    words = error.message[:_MAX_CHARACTERS]
    if words.startswith(_REFUSED_PARAMETERS):
        # The dialects have checked all ranges, so the structured output is at fault, where there is one.
        message = "The model's server refused a sampling parameter or the structured output; its log has the reason."
        return InvalidRequest(message, param="structured_outputs")
    if _TOO_LONG.search(words):
        return ContextLengthExceeded(error.message, param="prompt")
    if (unknown := _UNKNOWN.search(words)) and unknown[1] in _OPTIONS:
        param = _OPTIONS[unknown[1]]
        return UnsupportedOption(
            f"The vLLM release of this model does not support the option '{unknown[1]}'.", param=param
        )
    found = next((param for pattern, param in _PARAM_PATTERNS if pattern.search(words)), None)
    if found is None and (wrong := _RANGE.match(words)):
        found = _OPTIONS.get(wrong[1])
    return InvalidRequest(error.message, param=found) if found else error
