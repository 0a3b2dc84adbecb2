"""Triton's own clients: the tensors of docs/architecture.md, without the gateway."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import tritonclient.grpc as client
from tritonclient.utils import InferenceServerException

from tests.triton.model_copies import install_copy
from tests.triton.tensor_stream import Stream, opened, tensor, texts, total
from tests.triton.text_client import NAME
from tritonic.embedded import EmbeddedTriton

pytestmark = pytest.mark.triton

TEXT = "One, two, three, four,"
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 12, "ignore_eos": True}
EVERYTHING: dict[str, Any] = {
    "return_finish_reason": True,
    "return_num_input_tokens": True,
    "return_num_output_tokens": True,
}


@pytest.fixture(scope="module")
def triton(default_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedTriton]:
    """A Triton without a gateway. `test_a_stream_with_true_statuses` may crash it."""
    repository = tmp_path_factory.mktemp("plain")
    install_copy(default_folder, repository, NAME, without=("return_cumulative_logprob", "cumulative_logprob"))
    with EmbeddedTriton(repository, http_port=0) as running:
        yield running


@pytest.fixture
def server(triton: EmbeddedTriton) -> Iterator[client.InferenceServerClient]:
    with client.InferenceServerClient(triton.grpc_url) as server:
        yield server


@pytest.fixture
def stream(server: client.InferenceServerClient) -> Stream:
    return opened(server)


def test_deltas_join_to_the_whole_response(stream: Stream) -> None:
    deltas = stream.infer(text_input=TEXT, stream=True, sampling_parameters=GREEDY, **EVERYTHING)
    (whole,) = stream.infer(
        text_input=TEXT, stream=False, sampling_parameters=GREEDY, exclude_input_in_output=True, **EVERYTHING
    )
    assert len(deltas) > 1
    assert "".join(texts(deltas)) == texts([whole])[0] != ""
    assert [result.as_numpy("finish_reason")[0] for result in deltas] == [b"None"] * (len(deltas) - 1) + [b"length"]
    assert whole.as_numpy("finish_reason")[0] == b"length"
    assert total(deltas, "num_output_tokens") == total([whole], "num_output_tokens") == 12
    assert {int(result.as_numpy("num_input_tokens")[0]) for result in [*deltas, whole]} == {8}


def test_optional_outputs_are_left_out(stream: Stream) -> None:
    (result,) = stream.infer(text_input=TEXT, sampling_parameters=GREEDY)
    assert [output.name for output in result.get_response().outputs] == ["text_output"]


@pytest.mark.parametrize(
    ("options", "excluded"),
    [
        ({}, False),
        ({"stream": True}, True),
        ({"exclude_input_in_output": True}, True),
        ({"stream": True, "exclude_input_in_output": False}, False),
        ({"exclude_input_in_output": False}, False),
    ],
    ids=str,
)
def test_exclude_input_in_output(stream: Stream, options: dict[str, Any], excluded: bool) -> None:
    text = "".join(texts(stream.infer(text_input=TEXT, sampling_parameters=GREEDY, **options)))
    assert text.startswith(TEXT) is not excluded
    assert text.removeprefix(TEXT).startswith(" five")


PARAMETERS = [
    {"temperature": 0, "max_tokens": 6},
    {"temperature": "0.0", "max_tokens": "6", "top_p": "0.95"},
    {"temperature": 0.0, "max_tokens": 6, "stream": False, "return_num_output_tokens": "true"},
    {"temperature": 0, "max_tokens": 6, "structured_outputs": '{"regex": " five, six, seven, eight"}'},
]


@pytest.mark.parametrize("parameters", PARAMETERS, ids=str)
def test_request_parameters_stand_in_for_absent_tensors(stream: Stream, parameters: dict[str, Any]) -> None:
    results = stream.infer(parameters, text_input=TEXT)
    assert texts(results) == [f"{TEXT} five, six, seven,"]
    assert "return_num_output_tokens" not in parameters or total(results, "num_output_tokens") == 6


def test_the_tensor_overrides_the_request_parameters(stream: Stream) -> None:
    """NVIDIA's sample client sends both, and writes numbers as strings."""
    sent = {"temperature": "0.1", "top_p": "0.95", "max_tokens": "9"}
    results = stream.infer({**sent, "max_tokens": "2"}, text_input=TEXT, sampling_parameters=sent, **EVERYTHING)
    assert total(results, "num_output_tokens") == 9


def test_sixteen_tokens_are_the_default(stream: Stream) -> None:
    for parameters in ({}, {"temperature": "0"}):
        results = stream.infer({**parameters, "ignore_eos": True}, text_input=TEXT, **EVERYTHING)
        assert total(results, "num_output_tokens") == 16
        assert results[-1].as_numpy("finish_reason")[0] == b"length"


def test_log_probabilities_and_their_sum(stream: Stream) -> None:
    """The model was built by a version without the sum; the backend declares the missing tensors."""
    options: dict[str, Any] = {
        "text_input": TEXT,
        "stream": True,
        "return_logprobs": True,
        "return_cumulative_logprob": True,
    }
    results = stream.infer(sampling_parameters={**GREEDY, "logprobs": 2}, **options)
    entries = [entry for result in results for entry in json.loads(result.as_numpy("logprobs")[0])]
    chosen = [next(iter(entry.values()))["logprob"] for entry in entries]
    sums = [float(result.as_numpy("cumulative_logprob")[0]) for result in results]
    assert len(chosen) == 12 and sums == sorted(sums, reverse=True)
    assert sums[-1] == pytest.approx(sum(chosen), rel=1e-5)
    silent = stream.infer(sampling_parameters=GREEDY, **options)
    assert {result.as_numpy("logprobs")[0] for result in silent} == {b"null"}
    assert float(silent[-1].as_numpy("cumulative_logprob")[0]) == sums[-1]


def test_token_ids(stream: Stream, tokenizer: Any) -> None:
    by_tokens = stream.infer(token_ids=tokenizer.encode(TEXT), sampling_parameters=GREEDY, **EVERYTHING)
    by_text = stream.infer(text_input=TEXT, sampling_parameters=GREEDY, **EVERYTHING)
    assert texts(by_tokens) == texts(by_text)
    assert total(by_tokens, "num_input_tokens") == len(tokenizer.encode(TEXT))


def test_choices_are_elements_of_one_tensor(stream: Stream) -> None:
    drawn = {**GREEDY, "temperature": 1.0, "seed": 3, "n": 3}
    (result,) = stream.infer(text_input=TEXT, sampling_parameters=drawn, exclude_input_in_output=True, **EVERYTHING)
    answers = result.as_numpy("text_output")
    assert answers.shape == (3,) and len(set(answers)) == 3
    assert list(result.as_numpy("finish_reason")) == [b"length"] * 3
    assert total([result], "num_output_tokens") == 36


def test_many_requests_share_one_stream(server: client.InferenceServerClient) -> None:
    stream = opened(server)
    inputs = [tensor("text_input", TEXT), tensor("sampling_parameters", GREEDY)]
    for number in range(8):
        server.async_stream_infer(NAME, inputs, request_id=str(number), enable_empty_final_response=True)
    answers: dict[str, set[str]] = {}
    finals = 0
    while finals < 8:
        result, error = stream.received.get(timeout=60)
        assert error is None
        response = result.get_response()
        finals += response.parameters["triton_final_response"].bool_param
        if response.outputs:
            answers.setdefault(response.id, set()).update(texts([result]))
    assert set(answers) == {str(number) for number in range(8)}
    assert len({text for results in answers.values() for text in results}) == 1


FAILURES: dict[str, tuple[dict[str, Any], str, str]] = {
    "too long": ({"text_input": " fish" * 9000}, "[context_length_exceeded:text_input]", "9000"),
    "no prompt": ({}, "[invalid_value:text_input]", "Exactly one"),
    "two prompts": ({"text_input": TEXT, "token_ids": [1, 2]}, "[invalid_value:text_input]", "Exactly one"),
    "a strange token": ({"token_ids": [1, 1_000_000]}, "[invalid_value:token_ids]", "1000000"),
    "a negative token": ({"token_ids": [-1]}, "[invalid_value:token_ids]", "-1"),
    "no tokens": ({"token_ids": []}, "[invalid_value:token_ids]", "empty"),
    "unknown option": (
        {"text_input": TEXT, "sampling_parameters": {"beams": 4}},
        "[unsupported_option:beams]",
        "beams",
    ),
    "hot": ({"text_input": TEXT, "sampling_parameters": {"temperature": -1}}, "[invalid_value:temperature]", "-1"),
    "no number": (
        {"text_input": TEXT, "sampling_parameters": {"top_p": "nan"}},
        "[invalid_value:top_p]",
        "decimal digits",
    ),
    "not JSON": ({"text_input": TEXT, "sampling_parameters": "{"}, "[invalid_value:sampling_parameters]", "JSON"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_errors_of_streams_are_messages(stream: Stream, failure: str) -> None:
    """A stream that requests no statuses carries the error as text, and stays open."""
    tensors, code, _ = FAILURES[failure]
    with pytest.raises(InferenceServerException) as raised:
        stream.infer(**tensors)
    assert raised.value.message().startswith(code)
    assert texts(stream.infer(text_input=TEXT, sampling_parameters=GREEDY))[0].startswith(TEXT)


def test_only_streams_are_served(server: client.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="decoupled"):
        server.infer(NAME, [tensor("text_input", TEXT)])


def test_a_cancelled_stream_does_not_affect_the_next(server: client.InferenceServerClient, stream: Stream) -> None:
    """Triton's own client cancels a stream; the server serves the next one."""
    endless = {**GREEDY, "max_tokens": 4000}
    inputs = [tensor("text_input", TEXT), tensor("stream", True), tensor("sampling_parameters", endless)]
    server.async_stream_infer(NAME, inputs, enable_empty_final_response=True)
    assert stream.received.get(timeout=60)[1] is None
    server.stop_stream(cancel_requests=True)
    again = opened(server)
    assert texts(again.infer(text_input=TEXT, sampling_parameters=GREEDY))[0].startswith(TEXT)


@pytest.mark.parametrize("failure", FAILURES)
def test_http_statuses(triton: EmbeddedTriton, failure: str) -> None:
    """Triton's own HTTP endpoint for one response shows the status that the backend gives."""
    tensors, code, _ = FAILURES[failure]
    sampling = tensors.get("sampling_parameters")
    if isinstance(sampling, dict):
        tensors = {**tensors, "sampling_parameters": json.dumps(sampling)}
    url = f"{triton.http_url}/v2/models/{NAME}/generate"
    response = httpx.post(url, json={**tensors, "stream": False}, timeout=60, trust_env=False)
    assert response.status_code == 400
    assert code in response.json()["error"]


GENERATED = [
    # The README of Triton's vLLM backend.
    ({"stream": False, "temperature": 0}, 16, False),
    ({"stream": False, "temperature": 0, "exclude_input_in_output": True, "max_tokens": 45}, 45, True),
    # Parameters of the protocol reach a backend too.
    ({"max_tokens": 6, "temperature": 0, "priority": 1, "timeout": 10**8, "sequence_id": 3, "triton_x": 1}, 6, False),
]


@pytest.mark.parametrize(("parameters", "count", "excluded"), GENERATED, ids=str)
def test_generating_by_request_parameters(
    triton: EmbeddedTriton, parameters: dict[str, Any], count: int, excluded: bool
) -> None:
    url = f"{triton.http_url}/v2/models/{NAME}/generate"

    def generate(text: str, **more: Any) -> Any:
        body = {"text_input": text, "parameters": {**parameters, **more}, **EVERYTHING}
        response = httpx.post(url, json=body, timeout=60, trust_env=False)
        assert response.status_code == 200, response.text
        return response.json()

    document = generate("What is Triton Inference Server?")
    assert (
        document["text_output"].startswith("What is Triton") is not excluded and document["num_output_tokens"] <= count
    )
    document = generate(TEXT, ignore_eos=True)
    assert (document["num_output_tokens"], document["finish_reason"]) == (count, "length")
    assert document["text_output"].removeprefix(TEXT).startswith(" five, six, seven,")


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (b'"beams": 4', "[unsupported_option:beams]"),
        (b'"max_tokens": "0x10"', "[invalid_value:max_tokens]"),
        (b'"temperature": -0.5', "[invalid_value:temperature]"),
        (b'"stop": "\xff"', "[invalid_value:parameters]"),
    ],
)
def test_wrong_request_parameters(triton: EmbeddedTriton, more: bytes, code: str) -> None:
    url = f"{triton.http_url}/v2/models/{NAME}/generate"
    response = httpx.post(url, content=b'{"text_input": "x", %b}' % more, timeout=60, trust_env=False)
    assert response.status_code == 400
    assert response.json()["error"].startswith(code)


def test_a_stream_with_true_statuses(server: client.InferenceServerClient) -> None:
    """This is the last test of this server: Triton 2.51 can crash after a stream that ended with an error status."""
    stream = opened(server, triton_grpc_error="true")
    with pytest.raises(InferenceServerException) as raised:
        stream.infer(text_input=" fish" * 9000)
    assert raised.value.status() == str(grpc.StatusCode.INVALID_ARGUMENT)
    assert raised.value.message().startswith("[context_length_exceeded:text_input]")
