"""The tensors of tensorrt_llm_bls and ensemble."""

import struct
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import pytest
from tritonclient.grpc import service_pb2 as pb

from gateway.errors import ModelFailed, UnsupportedOption
from gateway.operations.complete import Complete
from gateway.operations.text import EMPTY_DELTA, Delta, Finish, Sampling, StructuredOutput, TextEvent, Usage
from gateway.signatures import tensorrt_llm, tensorrt_llm_steps
from gateway.triton.model_config import ModelConfig
from gateway.triton.tensors import InferResponse, Tensor
from tests.unit.gateway.model_cards import card_of

ENSEMBLE = ModelConfig(
    name="ensemble",
    parameters={"context_length": "100"},
    inputs={**tensorrt_llm.INPUTS, **tensorrt_llm.OPTIONAL_INPUTS},
    outputs={**tensorrt_llm.OUTPUTS, "sequence_index": "INT32"},
    serialized=b"",
    max_batch_size=8,
)
BLS = replace(ENSEMBLE, inputs={**ENSEMBLE.inputs, "num_draft_tokens": "INT32"})


def encode(config: ModelConfig = ENSEMBLE, **sampling: Any) -> dict[str, Tensor]:
    request = Complete(model="m", prompt="p", sampling=Sampling(**sampling))
    return {tensor.name: tensor for tensor in tensorrt_llm.encode(request, card_of(config))}


def number(tensor: Tensor) -> float:
    value: float
    (value,) = struct.unpack({"INT32": "<i", "FP32": "<f", "UINT64": "<Q", "BOOL": "<?"}[tensor.datatype], tensor.data)
    return value


def response(text: str, **numbers: int) -> InferResponse:
    message = pb.ModelInferResponse()
    message.outputs.add(name="text_output", datatype="BYTES", shape=[1])
    data = text.encode()
    message.raw_output_contents.append(struct.pack("<I", len(data)) + data)
    for name, value in numbers.items():
        message.outputs.add(name=name, datatype="INT32", shape=[1, 1])
        message.raw_output_contents.append(struct.pack("<i", value))
    return InferResponse(message)


def counted(text: str, tokens: int = 1, **counts: int) -> InferResponse:
    return response(text, num_input_tokens=10, num_output_tokens=tokens, **counts)


async def decode(*responses: InferResponse, config: ModelConfig = ENSEMBLE, **sampling: Any) -> list[TextEvent]:
    async def stream() -> AsyncGenerator[InferResponse]:
        for response in responses:
            yield response

    request = Complete(model="m", prompt="p", sampling=Sampling(**sampling))
    return [event async for event in tensorrt_llm.decode(request, stream(), card_of(config))]


def test_every_tensor_has_the_batch_dimension_that_the_model_has() -> None:
    tensors = encode(stop=("a", "b"), temperature=0.5)
    assert tensors["stop_words"].shape == (1, 2)
    assert {tensor.shape for name, tensor in tensors.items() if name != "stop_words"} == {(1, 1)}
    assert all(ENSEMBLE.inputs[name] == tensor.datatype for name, tensor in tensors.items())
    assert encode(replace(ENSEMBLE, max_batch_size=0), stop=("a", "b"))["stop_words"].shape == (2,)


def test_only_models_that_can_are_asked_to_stream() -> None:
    assert number(encode()["stream"]) == 1
    assert number(encode(replace(ENSEMBLE, decoupled=False))["stream"]) == 0


@pytest.mark.parametrize(
    ("parameters", "requested", "expected"),
    [
        ({"context_length": "100"}, None, 100),
        ({"context_length": "100", "max_tokens": "30"}, None, 30),
        ({"context_length": "100", "max_tokens": "30"}, 40, 40),
    ],
)
def test_the_length_of_an_answer(parameters: dict[str, str], requested: int | None, expected: int) -> None:
    assert number(encode(replace(ENSEMBLE, parameters=parameters), max_tokens=requested)["max_tokens"]) == expected


def test_an_unknown_length_is_required_from_the_caller() -> None:
    with pytest.raises(UnsupportedOption) as caught:
        encode(replace(ENSEMBLE, parameters={}))
    assert caught.value.param == "max_tokens"
    optional = replace(ENSEMBLE, parameters={}, optional=frozenset({"max_tokens"}))
    assert "max_tokens" not in encode(optional)
    assert "max_tokens" in encode(optional, max_tokens=3)


@pytest.mark.parametrize(
    ("changed", "whole", "streams"),
    [
        ({}, False, 1),
        ({}, True, 0),
        ({"decoupled": False}, False, 0),
        # It puts all tokens together for each piece.
        ({"parameters": {"accumulate_tokens": "true", "context_length": "100"}}, True, 1),
    ],
)
def test_a_whole_answer_is_requested_without_streaming(changed: dict[str, Any], whole: bool, streams: int) -> None:
    config = replace(ENSEMBLE, **changed)
    request = Complete(model="m", prompt="p", non_streaming=whole)
    (stream,) = (tensor for tensor in tensorrt_llm.encode(request, card_of(config)) if tensor.name == "stream")
    assert number(stream) == streams
    assert tensorrt_llm.silent_tokens(request, card_of(config)) == (0 if streams else 100)


def test_only_what_a_model_has_is_sent_in_its_own_shapes() -> None:
    inputs = {"text_input": "BYTES", "stream": "BOOL", "stop_words": "BYTES", "seed": "INT64"}
    ranks = {"text_input": 2, "stream": 2, "stop_words": 1}
    mock = ModelConfig("m", {}, inputs, tensorrt_llm.OUTPUTS, b"", ranks=ranks)
    tensors = encode(mock, stop=("a", "b"))
    assert {name: tensor.shape for name, tensor in tensors.items()} == {
        "text_input": (1, 1),
        "stream": (1, 1),
        "stop_words": (2,),
    }
    for option in ("temperature", "top_k", "seed", "min_tokens", "presence_penalty"):
        with pytest.raises(UnsupportedOption) as caught:
            encode(mock, **{option: 1})
        assert caught.value.param == option
    assert number(encode(replace(mock, inputs={**inputs, "temperature": "FP32"}), temperature=0)["temperature"]) == 0
    with pytest.raises(UnsupportedOption, match="max_tokens"):
        encode(replace(mock, decoupled=False), max_tokens=1)
    # An option without effect needs no tensor.
    encode(mock, top_p=1, presence_penalty=0, frequency_penalty=0, repetition_penalty=1, min_p=0, min_tokens=0)


@pytest.mark.parametrize(
    ("requested", "expected"),
    [
        ({}, {}),
        ({"temperature": 0.0, "top_p": 0.5}, {"top_k": 1, "temperature": 1}),
        ({"temperature": 0.5, "seed": 3}, {"temperature": 0.5, "top_p": 1, "seed": 3}),
        ({"top_k": 5, "seed": -1}, {"top_k": 5, "seed": 2**64 - 1}),
        ({"top_k": -1, "seed": 3}, {"top_k": 0, "top_p": 1, "seed": 3}),
        ({"top_p": 0.5, "seed": 3}, {"top_p": 0.5, "seed": 3}),
    ],
)
def test_sampling_parameters_become_tensors(requested: dict[str, Any], expected: dict[str, float]) -> None:
    tensors = encode(**requested)
    assert {n: number(tensors[n]) for n in ("top_k", "top_p", "temperature", "seed") if n in tensors} == expected


def test_requests_without_a_seed_get_different_ones() -> None:
    assert number(encode(temperature=1.0)["seed"]) != number(encode(temperature=1.0)["seed"])


def test_several_answers_are_several_requests_where_the_model_has_no_index() -> None:
    assert number(encode(n=3)["num_return_sequences"]) == 3
    three = Complete(model="m", prompt="p", sampling=Sampling(n=3, seed=5))
    assert tensorrt_llm.TEXT.parts(three, card_of(ENSEMBLE)) == [three]
    for config in (BLS, replace(ENSEMBLE, decoupled=False), replace(ENSEMBLE, outputs=tensorrt_llm.OUTPUTS)):
        parts = tensorrt_llm.TEXT.parts(three, card_of(config))
        assert [(part.sampling.n, part.sampling.seed) for part in parts] == [(1, 5), (1, 6), (1, 7)]
        # Else the runtime would take the likeliest token, with the same seed: three times the same answer.
        drawn = [
            part.sampling for part in tensorrt_llm.TEXT.parts(replace(three, sampling=Sampling(n=3)), card_of(config))
        ]
        assert {sampling.top_p for sampling in drawn} == {1.0}
        assert len({sampling.seed for sampling in drawn}) == 3
        (cold, _) = tensorrt_llm.TEXT.parts(replace(three, sampling=Sampling(n=2, temperature=0.0)), card_of(config))
        assert (cold.sampling.temperature, cold.sampling.top_p) == (0.0, None)
    seedless = replace(BLS, inputs={name: kind for name, kind in BLS.inputs.items() if name != "seed"})
    assert [
        part.sampling.seed
        for part in tensorrt_llm.TEXT.parts(replace(three, sampling=Sampling(n=2)), card_of(seedless))
    ] == [
        None,
        None,
    ]


@pytest.mark.parametrize("kind", ["json", "regex"])
def test_structures_are_refused_where_there_is_no_tensor(kind: Any) -> None:
    minimal = replace(ENSEMBLE, inputs=tensorrt_llm.INPUTS)
    with pytest.raises(UnsupportedOption) as caught:
        encode(minimal, structured_outputs=StructuredOutput(kind, "x"))
    assert caught.value.param == "response_format"
    with pytest.raises(UnsupportedOption, match="min_tokens"):
        encode(minimal, min_tokens=2)


def test_json_without_a_schema_needs_no_guide() -> None:
    tensors = encode(structured_outputs=StructuredOutput("json", True))
    assert "guided_decoding_guide" not in tensors


def test_pictures_and_tokens_are_refused() -> None:
    with pytest.raises(UnsupportedOption) as caught:
        tensorrt_llm.encode(Complete(model="m", prompt="p", images=(b"x",)), card_of(ENSEMBLE))
    assert caught.value.param == "messages"
    with pytest.raises(UnsupportedOption) as caught:
        tensorrt_llm.encode(Complete(model="m", prompt=(1, 2)), card_of(ENSEMBLE))
    assert caught.value.param == "prompt"


async def test_token_counts_decide_the_finish_reason() -> None:
    assert await decode(counted("a"), counted("b")) == [
        Delta(0, "a", 1),
        Delta(0, "b", 1),
        Finish(0, "stop"),
        Usage(10, 2),
    ]
    assert Finish(0, "length") in await decode(counted("a"), counted("b"), max_tokens=2)
    # The engine had no more room: 10 and 90 fill its context.
    assert Finish(0, "length") in await decode(counted("a", 90), max_tokens=95)


async def test_an_answer_without_counts_has_stopped() -> None:
    assert await decode(response("a"), response("b")) == [Delta(0, "a"), Delta(0, "b"), Finish(0, "stop")]
    unknown = replace(ENSEMBLE, parameters={})
    assert Finish(0, "stop") in await decode(counted("a"), max_tokens=9, config=unknown)
    assert Finish(0, "length") in await decode(counted("a", 9), max_tokens=9, config=unknown)


async def test_answers_of_a_model_without_a_length_tensor_are_cut() -> None:
    mock = ModelConfig("m", {}, {**tensorrt_llm.INPUTS, "stream": "BOOL"}, tensorrt_llm.OUTPUTS, b"")
    texts = [response("a"), response(""), response("b"), response("c")]
    assert await decode(*texts, config=mock, max_tokens=2) == [
        Delta(0, "a"),
        EMPTY_DELTA,
        Delta(0, "b"),
        Finish(0, "length"),
    ]
    assert (await decode(*texts, config=mock, max_tokens=3))[-1] == Finish(0, "length")
    assert (await decode(*texts, config=mock, max_tokens=4))[-1] == Finish(0, "stop")
    # Pieces are counted, also of an answer that is read whole; a prompt that stands before them is not.
    whole = Complete(model="m", prompt="p", non_streaming=True, echo=True, sampling=Sampling(max_tokens=1))
    (stream,) = (tensor for tensor in tensorrt_llm.encode(whole, card_of(mock)) if tensor.name == "stream")
    assert number(stream) == 1

    async def responses() -> AsyncGenerator[InferResponse]:
        for response in texts:
            yield response

    events = [event async for event in tensorrt_llm.decode(whole, responses(), card_of(mock))]
    # Later responses are awaited: cancelling a stream just as it ends can crash Triton.
    assert events == [Delta(0, "p"), Delta(0, "a"), Finish(0, "length"), EMPTY_DELTA]


async def test_a_model_that_exceeds_its_length_is_cancelled() -> None:
    mock = ModelConfig("m", {}, {**tensorrt_llm.INPUTS, "stream": "BOOL"}, tensorrt_llm.OUTPUTS, b"")
    received = 0

    async def endless() -> AsyncGenerator[InferResponse]:
        nonlocal received
        while True:
            received += 1
            yield counted("a")

    request = Complete(model="m", prompt="p", sampling=Sampling(max_tokens=2))
    events = [event async for event in tensorrt_llm.decode(request, endless(), card_of(mock))]
    assert [event for event in events if event is not EMPTY_DELTA] == [
        Delta(0, "a", 1),
        Delta(0, "a", 1),
        Finish(0, "length"),
    ]
    assert received == 10


async def test_a_stop_string_sets_the_finish_reason() -> None:
    events = await decode(response("a E"), response("ND b"), stop=("END",))
    assert events == [Delta(0, "a "), EMPTY_DELTA, Finish(0, "stop")]


async def test_an_engine_that_ignores_the_stop_string_is_cancelled() -> None:
    received = 0

    async def endless() -> AsyncGenerator[InferResponse]:
        nonlocal received
        while True:
            received += 1
            yield counted("END")

    request = Complete(model="m", prompt="p", sampling=Sampling(stop=("END",)))
    events = [event async for event in tensorrt_llm.decode(request, endless(), card_of(ENSEMBLE))]
    assert events[-2:] == [Finish(0, "stop"), Usage(10, received)]
    assert received < 20


async def test_deltas_of_several_answers_are_interleaved() -> None:
    events = await decode(
        counted("a", sequence_index=1), counted("b", sequence_index=0), counted("c", sequence_index=1), n=2
    )
    assert "".join(event.text for event in events if isinstance(event, Delta) and event.index == 1) == "ac"
    assert events[-3:] == [Finish(0, "stop"), Finish(1, "stop"), Usage(10, 3)]
    with pytest.raises(ModelFailed, match="more answers"):
        await decode(response("a", sequence_index=2), n=2)


async def test_a_model_that_accumulates_tokens_sends_whole_texts() -> None:
    config = replace(ENSEMBLE, parameters={**ENSEMBLE.parameters, "accumulate_tokens": "true"})
    events = await decode(counted("a"), counted("ab"), counted("abc"), config=config)
    assert [event.text for event in events if isinstance(event, Delta)] == ["a", "b", "c"]


async def test_a_stream_without_an_answer_is_a_failure() -> None:
    with pytest.raises(ModelFailed, match="ended the stream"):
        await decode()


def test_the_engine_of_an_ensemble_can_be_told_to_stop() -> None:
    inputs = {"input_ids": "INT32", "input_lengths": "INT32", "request_output_len": "INT32", "stop": "BOOL"}
    core = ModelConfig("tensorrt_llm", {}, inputs, {}, b"", max_batch_size=8)
    stop = tensorrt_llm_steps.stop_request(core)
    assert stop is not None
    assert (stop.model, {tensor.name for tensor in stop.tensors}) == ("tensorrt_llm", set(inputs))
    assert {tensor.shape for tensor in stop.tensors} == {(1, 1)}
    assert tensorrt_llm_steps.stop_request(ENSEMBLE) is None
