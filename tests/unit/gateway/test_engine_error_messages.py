"""Error messages of engines that are not ours, and the errors that they become."""

import time

import pytest

from gateway.errors import ContextLengthExceeded, GatewayError, InvalidRequest, ModelFailed, UnsupportedOption
from gateway.model_card.card import TextCard
from gateway.operations.complete import Complete
from gateway.operations.text import Sampling
from gateway.signatures import third_party_errors

NO_ROOM = (
    "Error generating request: The sum of prompt length ({prompt}.0) and query length (0) max_tokens ({limit}) "
    "should not exceed max_seq_len (4096)"
)


@pytest.mark.parametrize(
    ("message", "kind", "param"),
    [
        ("Prompt length (9000) exceeds maximum input length (8192). Set log level", ContextLengthExceeded, "prompt"),
        ("Prompt length + number of draft tokens (9 + 4) exceeds maximum input length (8).", None, "prompt"),
        (
            "The sum of prompt length (72417.0), query length (0) should not exceed max_num_tokens (69632)",
            None,
            "prompt",
        ),
        ("prompt length (72417.0) should not exceed max_num_tokens (69632)", None, "prompt"),
        (
            "`default_max_tokens` (-152) must be greater than 0, `default_max_tokens` (-152) = max_seq_len (8192) - "
            "`splited_prompt_len` (8000) - `query_token_len` (344)",
            None,
            "prompt",
        ),
        ("default_max_tokens (-152) must be greater than 0", None, "prompt"),
        (NO_ROOM.format(prompt=5000, limit=10), None, "prompt"),
        (NO_ROOM.format(prompt=4000, limit=4000), None, "max_tokens"),
        ("The decoder prompt (length 9) is longer than the maximum model length of 8.", None, "prompt"),
        ("require 0 <= top_p <= 1, got top_p=2", InvalidRequest, "top_p"),
        ("require 0 <= beam <= 1, got beam=2", ModelFailed, None),
        ("`max_tokens` (0) must be greater than 0", InvalidRequest, "max_tokens"),
        ("max_tokens must be a single value > 0", InvalidRequest, "max_tokens"),
        (
            "Request is specified with GuidedDecodingParams, but GuidedDecoder is not setup. Please provide one",
            UnsupportedOption,
            "structured_outputs",
        ),
        ("CUDA out of memory", ModelFailed, None),
    ],
)
def test_engine_messages_become_errors(message: str, kind: type[GatewayError] | None, param: str | None) -> None:
    for before in ("", "ValueError: ", "Error generating request: utils.RequestError: ", "in ensemble 'e', KeyError: "):
        reported = before + message
        error = third_party_errors.explain(ModelFailed(reported))
        assert (type(error), error.param) == (kind or ContextLengthExceeded, param)
        assert "Error: " not in error.message


TRACEBACK = """Traceback (most recent call last):
  File "/models/bls/1/model.py", line 3, in execute
    answer()
    ^^^^^^^^
ValueError: one

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/models/bls/1/model.py", line 5, in execute
    raise again
{raised}
"""


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        ("pb_utils.Oh: It broke.", "It broke."),
        ("c_python_backend_utils.TritonModelException: It broke: badly.\nAnd: again.", "It broke: badly.\nAnd: again."),
        (
            "TritonModelException: Assertion failed: No (/src/cpp/x.cpp:12)\n1       0x7f3b libnv.so(+0x1) [0x2]",
            "Assertion failed: No",
        ),
        ("AssertionError", "The model failed without a message."),
    ],
)
def test_tracebacks_are_removed_from_messages(raised: str, expected: str) -> None:
    assert third_party_errors.explain(ModelFailed(TRACEBACK.format(raised=raised))).message == expected


def test_text_that_looks_like_an_exception_class_stays() -> None:
    for message in ("The Error: none", "It said MyError", "Note: all is well", "500 Error: no"):
        assert third_party_errors.clean_message(message) == message


def test_failures_of_our_backends_stay_unchanged() -> None:
    for error in (InvalidRequest("ValueError: x"), UnsupportedOption("require a, got top_p=2", param="x")):
        assert third_party_errors.explain(error) is error
        assert error.message in ("ValueError: x", "require a, got top_p=2")


def test_a_request_without_max_tokens_is_retried_with_the_remaining_context() -> None:
    request = Complete(model="m", prompt="p", sampling=Sampling(temperature=0.5))
    refused = ModelFailed("ValueError: " + NO_ROOM.format(prompt=4000, limit=4096))
    again = third_party_errors.retry_request(request, refused, TextCard())
    assert again is not None
    assert (again.sampling.max_tokens, again.sampling.temperature, again.prompt) == (96, 0.5, "p")
    short = third_party_errors.retry_request(request, refused, TextCard(max_tokens=50))
    assert short is not None and short.sampling.max_tokens == 50
    for other in (ModelFailed(NO_ROOM.format(prompt=4096, limit=1)), ModelFailed("No."), InvalidRequest("No.")):
        assert third_party_errors.retry_request(request, other, TextCard()) is None
    request = Complete(model="m", prompt="p", sampling=Sampling(max_tokens=4096))
    assert third_party_errors.retry_request(request, refused, TextCard()) is None


@pytest.mark.parametrize("message", ["prompt length ", "a.", "Traceback\n  File x\n    a\n", "require "])
def test_long_messages_are_parsed_in_linear_time(message: str) -> None:
    began = time.thread_time()
    third_party_errors.explain(ModelFailed(message * 300_000))
    assert time.thread_time() - began < 0.1
