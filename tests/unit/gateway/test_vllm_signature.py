"""Requests to tensors, and responses to events."""

import json
import struct
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from tritonclient.grpc import service_pb2 as pb

from gateway.errors import InvalidRequest, ModelFailed
from gateway.operations.chat import Chat, Message
from gateway.operations.complete import Complete
from gateway.operations.text import Delta, Finish, Sampling, TextEvent, Usage
from gateway.signatures import vllm
from gateway.triton import Response, Tensor

PARAMETERS = {"chat_template": "{{ bos_token }}{{ messages[0].content }}", "special_tokens": '{"bos_token": "<s>"}'}


def strings(tensor: Tensor) -> list[str]:
    values, at = [], 0
    while at < len(tensor.data):
        (size,) = struct.unpack_from("<I", tensor.data, at)
        values.append(tensor.data[at + 4 : at + 4 + size].decode())
        at += 4 + size
    return values


def encode(request: Chat | Complete) -> dict[str, Tensor]:
    return {tensor.name: tensor for tensor in vllm.encode(request, PARAMETERS)}


def respond(**outputs: Sequence[str] | int) -> Response:
    message = pb.ModelInferResponse()
    for name, value in outputs.items():
        if isinstance(value, int):
            message.outputs.add(name=name, datatype="UINT32", shape=[1])
            message.raw_output_contents.append(struct.pack("<I", value))
        else:
            message.outputs.add(name=name, datatype="BYTES", shape=[len(value)])
            encoded = [item.encode() for item in value]
            message.raw_output_contents.append(b"".join(struct.pack("<I", len(e)) + e for e in encoded))
    return Response(message)


async def decode(*responses: Response) -> list[TextEvent]:
    async def stream() -> AsyncGenerator[Response]:
        for response in responses:
            yield response

    return [event async for event in vllm.decode(stream())]


def test_a_chat_becomes_the_prompt_its_template_makes() -> None:
    tensors = encode(Chat(model="m", messages=(Message(role="user", content="Grüße 👋"),)))
    assert strings(tensors["text_input"]) == ["<s>Grüße 👋"]
    assert tensors["stream"].data == b"\x01"
    assert set(tensors) == set(vllm.INPUTS)
    assert {name: tensor.datatype for name, tensor in tensors.items()} == vllm.INPUTS


def test_only_what_was_given_is_sent() -> None:
    tensors = encode(Complete(model="m", prompt="x"))
    assert json.loads(strings(tensors["sampling_parameters"])[0]) == {}


def test_every_parameter_travels_under_its_own_name() -> None:
    given: dict[str, Any] = {
        "max_tokens": 5,
        "temperature": 0.0,
        "top_p": 0.5,
        "top_k": 0,
        "min_p": 0.1,
        "seed": -1,
        "stop": ("\n", "。"),
        "presence_penalty": -1.5,
        "frequency_penalty": 0.0,
        "repetition_penalty": 1.1,
        "n": 3,
    }
    tensors = encode(Complete(model="m", prompt="x", sampling=Sampling(**given)))
    assert json.loads(strings(tensors["sampling_parameters"])[0]) == {**given, "stop": ["\n", "。"]}


async def test_several_answers_grow_side_by_side() -> None:
    events = await decode(
        respond(text_output=["a", ""], finish_reason=["", ""], num_input_tokens=4, num_output_tokens=1),
        respond(text_output=["b", "x"], finish_reason=["stop", ""], num_input_tokens=4, num_output_tokens=3),
        respond(text_output=["", "y"], finish_reason=["stop", "length"], num_input_tokens=4, num_output_tokens=1),
    )
    assert events == [
        Delta(0, "a", 1),
        Delta(0, "b", 3),
        Delta(1, "x", 0),
        Finish(0, "stop"),
        Delta(1, "y", 1),
        Finish(1, "length"),
        Usage(4, 5),
    ]


async def test_the_vllm_backends_none_is_no_reason() -> None:
    events = await decode(
        respond(text_output=["a"], finish_reason=["None"], num_output_tokens=1),
        respond(text_output=[""], finish_reason=["stop"], num_input_tokens=2, num_output_tokens=1),
    )
    assert [type(event) for event in events] == [Delta, Delta, Finish, Usage]


@pytest.mark.parametrize("responses", [[], [respond(text_output=["a"], finish_reason=[""], num_output_tokens=1)]])
async def test_an_answer_that_is_never_finished_is_a_failure(responses: list[Response]) -> None:
    with pytest.raises(ModelFailed, match="ended the stream before"):
        await decode(*responses)


async def test_an_unknown_reason_is_a_failure_not_a_guess() -> None:
    with pytest.raises(ModelFailed, match="abort"):
        await decode(respond(text_output=["a"], finish_reason=["abort"], num_output_tokens=1))


def test_failures_name_the_callers_field() -> None:
    chat = Chat(model="m", messages=(Message(role="user", content="x"),))
    assert vllm.explain(chat, InvalidRequest("too long", param="text_input")).param == "messages"
    assert vllm.explain(Complete(model="m", prompt=""), InvalidRequest("empty", param="text_input")).param == "prompt"
    assert vllm.explain(chat, InvalidRequest("no", param="top_p")).param == "top_p"
