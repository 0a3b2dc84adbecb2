"""Requests to tensors, and responses to events."""

import asyncio
import base64
import json
import struct
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from tritonclient.grpc import service_pb2 as pb

from gateway.errors import ContextLengthExceeded, GatewayError, InvalidRequest, ModelFailed, UnsupportedOption
from gateway.model_card.card import parse_text
from gateway.operations.complete import Complete
from gateway.operations.text import Delta, Finish, Logprob, Sampling, StructuredOutput, TextEvent, TokenLogprob, Usage
from gateway.signatures import vllm, vllm_logprobs
from gateway.triton.model_config import ModelConfig
from gateway.triton.tensors import InferResponse, Tensor
from tests.unit.gateway.model_cards import card_of

INPUTS = {**vllm.INPUTS, **vllm.OPTIONAL_INPUTS}
OUTPUTS = {
    **vllm.OUTPUTS,
    "finish_reason": "BYTES",
    "num_input_tokens": "UINT32",
    "num_output_tokens": "UINT32",
}
CONFIG = ModelConfig("m", {}, {**INPUTS, "token_ids": "INT32", "image": "BYTES"}, OUTPUTS, b"")
LOGPROBS = replace(CONFIG, inputs={**CONFIG.inputs, "return_logprobs": "BOOL"})
VLLM = replace(CONFIG, inputs={**INPUTS, "image": "BYTES", "return_logprobs": "BOOL", "embedding_request": "BYTES"})
"""Triton's vLLM backend, since 25.11."""
OLDER = replace(VLLM, inputs={name: kind for name, kind in VLLM.inputs.items() if name != "embedding_request"})
BARE = replace(CONFIG, inputs=INPUTS)
ASKED = Complete(model="m", prompt="x")


def strings(tensor: Tensor) -> list[str]:
    values, at = [], 0
    while at < len(tensor.data):
        (size,) = struct.unpack_from("<I", tensor.data, at)
        values.append(tensor.data[at + 4 : at + 4 + size].decode())
        at += 4 + size
    return values


def encode(request: Complete, config: ModelConfig = CONFIG) -> dict[str, Tensor]:
    return {tensor.name: tensor for tensor in vllm.encode(request, card_of(config))}


def sent(config: ModelConfig = VLLM, **sampling: Any) -> dict[str, Any]:
    """The sampling parameters that a model is sent."""
    tensors = encode(Complete(model="m", prompt="x", sampling=Sampling(**sampling)), config)
    parameters: dict[str, Any] = json.loads(strings(tensors["sampling_parameters"])[0])
    return parameters


def respond(**outputs: Sequence[str] | int) -> InferResponse:
    message = pb.ModelInferResponse()
    for name, value in outputs.items():
        if isinstance(value, int):
            message.outputs.add(name=name, datatype="UINT32", shape=[1])
            message.raw_output_contents.append(struct.pack("<I", value))
        else:
            message.outputs.add(name=name, datatype="BYTES", shape=[len(value)])
            encoded = [item.encode() for item in value]
            message.raw_output_contents.append(b"".join(struct.pack("<I", len(e)) + e for e in encoded))
    return InferResponse(message)


async def decode(*responses: InferResponse, request: Complete = ASKED) -> list[TextEvent]:
    async def stream() -> AsyncGenerator[InferResponse]:
        for response in responses:
            yield response

    return [event async for event in vllm.decode(request, stream(), card_of(CONFIG))]


def test_a_prompt_travels_as_text() -> None:
    tensors = encode(Complete(model="m", prompt="<s>Grüße 👋"))
    assert strings(tensors["text_input"]) == ["<s>Grüße 👋"]
    assert tensors["stream"].data == b"\x01"
    assert set(tensors) == set(INPUTS)
    assert {name: tensor.datatype for name, tensor in tensors.items()} == INPUTS


def test_only_what_was_given_is_sent() -> None:
    tensors = encode(Complete(model="m", prompt="x"))
    assert json.loads(strings(tensors["sampling_parameters"])[0]) == {}


def test_the_special_tokens_default_yields_to_the_caller() -> None:
    tensors = encode(replace(ASKED, show_special_tokens=True))
    assert json.loads(strings(tensors["sampling_parameters"])[0]) == {"skip_special_tokens": False}
    tensors = encode(replace(ASKED, sampling=Sampling(skip_special_tokens=False)))
    assert json.loads(strings(tensors["sampling_parameters"])[0]) == {"skip_special_tokens": False}


def test_every_parameter_travels_under_its_own_name() -> None:
    options: dict[str, Any] = {
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
        "min_tokens": 2,
        "logit_bias": {"17": -100},
        "logprobs": 0,
    }
    tensors = encode(Complete(model="m", prompt="x", sampling=Sampling(**options)), LOGPROBS)
    assert json.loads(strings(tensors["sampling_parameters"])[0]) == {**options, "stop": ["\n", "。"]}


def test_our_own_backend_gives_several_answers_at_once_and_vllm_one() -> None:
    three = Complete(model="m", prompt="x", sampling=Sampling(n=3, seed=7, temperature=0.5))
    assert vllm.TEXT.parts(three, card_of(CONFIG)) == [three]
    parts = vllm.TEXT.parts(three, card_of(VLLM))
    assert [(part.sampling.n, part.sampling.seed) for part in parts] == [(1, 7), (1, 8), (1, 9)]
    assert {replace(part, sampling=replace(part.sampling, seed=None)) for part in parts} == {
        replace(three, sampling=Sampling(n=1, temperature=0.5))
    }
    unseeded = replace(three, sampling=Sampling(n=2))
    assert [part.sampling.seed for part in vllm.TEXT.parts(unseeded, card_of(VLLM))] == [None, None]
    assert vllm.TEXT.parts(ASKED, card_of(VLLM)) == [ASKED]


def test_seeds_stay_within_what_vllm_takes_and_differ() -> None:
    last = Complete(model="m", prompt="x", sampling=Sampling(n=3, seed=2**63 - 2))
    seeds = [sent(seed=part.sampling.seed)["seed"] for part in vllm.TEXT.parts(last, card_of(VLLM))]
    assert seeds == [2**63 - 2, 2**63 - 1, 0]
    assert sent(seed=-1)["seed"] == 2**63 - 1  # to vLLM -1 is no seed at all


@pytest.mark.parametrize(
    ("parameters", "options", "expected"),
    [
        ({"context_length": "4000"}, None, 4000),
        ({"context_length": "4000", "max_tokens": "30"}, None, 30),
        ({"context_length": "4000", "max_tokens": "30"}, 40, 40),
        ({}, 5, 5),
        ({}, 2**40, 2**31 - 1),
        ({}, None, 2**31 - 1),
    ],
)
def test_vllm_always_gets_max_tokens(parameters: dict[str, str], options: int | None, expected: int) -> None:
    assert sent(replace(VLLM, parameters=parameters), max_tokens=options)["max_tokens"] == expected


def test_our_backend_needs_no_max_tokens() -> None:
    assert sent(replace(CONFIG, parameters={"context_length": "4000"})) == {}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"top_k": 0}, {"top_k": -1}),
        ({"top_k": -1}, {"top_k": -1}),
        ({"top_k": 5}, {"top_k": 5}),
        ({"top_p": 0.0, "temperature": 1.5}, {"temperature": 0}),
        ({"logit_bias": {}}, {}),
    ],
)
def test_vllm_gets_parameters_of_its_release(options: dict[str, Any], expected: dict[str, Any]) -> None:
    assert sent(**options, max_tokens=9) == {**expected, "max_tokens": 9}


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (VLLM, "structured_outputs"),
        (OLDER, "guided_decoding"),
        (replace(OLDER, parameters={"structured_outputs": "structured_outputs"}), "structured_outputs"),
        (replace(VLLM, parameters={"structured_outputs": "guided_decoding"}), "guided_decoding"),
        (CONFIG, "structured_outputs"),
    ],
)
def test_each_release_gets_structured_outputs_under_its_name(config: ModelConfig, name: str) -> None:
    parameters = sent(config, structured_outputs=StructuredOutput("regex", "a+"))
    assert {"structured_outputs", "guided_decoding"} & parameters.keys() == {name}
    assert json.loads(parameters[name]) == {"regex": "a+"}


def test_an_unknown_release_is_refused() -> None:
    parse_text({"structured_outputs": "guided_decoding"})
    with pytest.raises(ValueError, match="guided_json"):
        parse_text({"structured_outputs": "guided_json"})


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"logit_bias": {"17": -100.0}}, "logit_bias"),
        ({"min_tokens": 31}, "min_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_options_that_vllm_cannot_handle_are_refused_by_name(options: dict[str, Any], param: str) -> None:
    with pytest.raises(UnsupportedOption) as raised:
        sent(replace(VLLM, parameters={"max_tokens": "30"}), **options)
    assert raised.value.param == param


async def test_deltas_of_several_answers_are_interleaved() -> None:
    events = await decode(
        respond(text_output=["a", ""], finish_reason=["", ""], num_input_tokens=4, num_output_tokens=1),
        respond(text_output=["b", "x"], finish_reason=["stop", ""], num_input_tokens=4, num_output_tokens=3),
        respond(text_output=["", "y"], finish_reason=["stop", "length"], num_input_tokens=4, num_output_tokens=1),
        request=replace(ASKED, sampling=Sampling(n=2)),
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


async def test_the_finish_reason_none_is_ignored() -> None:
    events = await decode(
        respond(text_output=["a"], finish_reason=["None"], num_output_tokens=1),
        respond(text_output=[""], finish_reason=["stop"], num_input_tokens=2, num_output_tokens=1),
    )
    assert [type(event) for event in events] == [Delta, Delta, Finish, Usage]


@pytest.mark.parametrize("responses", [[], [respond(text_output=["a"], finish_reason=[""], num_output_tokens=1)]])
async def test_an_answer_that_is_never_finished_is_a_failure(responses: list[InferResponse]) -> None:
    with pytest.raises(ModelFailed, match="ended the stream before"):
        await decode(*responses)


async def test_an_unknown_reason_is_a_failure_not_a_guess() -> None:
    with pytest.raises(ModelFailed, match="abort"):
        await decode(respond(text_output=["a"], finish_reason=["abort"], num_output_tokens=1))


def test_failures_name_the_callers_field() -> None:
    assert vllm.explain(InvalidRequest("too long", param="text_input")).param == "prompt"
    assert vllm.explain(InvalidRequest("no", param="top_p")).param == "top_p"
    assert vllm.explain(InvalidRequest("no", param="stream")).param is None


@pytest.mark.parametrize(
    ("message", "kind", "param"),
    [
        ("'NoneType' object has no attribute 'lora_name'", InvalidRequest, "structured_outputs"),
        ("Grammar error: Ambiguous lexemes", InvalidRequest, "structured_outputs"),
        ("Failed to transform json schema into a grammar: x", InvalidRequest, "structured_outputs"),
        ("Invalid grammar specification.", InvalidRequest, "structured_outputs"),
        ("The decoder prompt cannot be empty", InvalidRequest, "prompt"),
        ("The decoder prompt (length 9000) is longer than the maximum model length of 8192.", None, "prompt"),
        (
            "The decoder prompt (length 8192) plus the number of requested output tokens (at least 1) is longer than "
            "the maximum model length of 8192.",
            None,
            "prompt",
        ),
        ("Requested sample logprobs of 30, which is greater than max allowed: 20", InvalidRequest, "logprobs"),
        ("token_id(s) [999999] in stop_token_ids contain out-of-vocab token ids.", InvalidRequest, "stop_token_ids"),
        ("top_k must be -1 (disable), or at least 1, got 0.", InvalidRequest, "top_k"),
        ("At most 1 image(s) may be provided in one prompt.", InvalidRequest, "messages"),
        ("cannot identify image file <_io.BytesIO object at 0x7f>", InvalidRequest, "messages"),
        ("Unexpected keyword argument 'guided_decoding'", UnsupportedOption, "structured_outputs"),
    ],
)
def test_refusals_of_vllm_are_invalid_requests(message: str, kind: type[GatewayError] | None, param: str) -> None:
    explained = vllm.explain(ModelFailed(f"Error generating stream: {message}"))
    assert type(explained) is (kind or ContextLengthExceeded)
    assert explained.param == param
    assert "NoneType" not in explained.message
    assert "generating stream" not in explained.message


@pytest.mark.parametrize(
    "message", ["CUDA out of memory.", "EngineCore encountered an issue.", "must be an error, got x"]
)
def test_other_failures_of_vllm_are_failures_of_the_model(message: str) -> None:
    explained = vllm.explain(ModelFailed(f"Error generating stream: {message}"))
    assert (type(explained), explained.param, explained.message) == (ModelFailed, None, message)


def test_a_structure_travels_as_a_string_as_the_vllm_backend_reads_it() -> None:
    structure = StructuredOutput("json", {"type": "object"})
    tensors = encode(Complete(model="m", prompt="x", sampling=Sampling(structured_outputs=structure)))
    sent = json.loads(strings(tensors["sampling_parameters"])[0])
    assert json.loads(sent["structured_outputs"]) == {"json": {"type": "object"}}


def test_token_ids_and_pictures_have_tensors_of_their_own() -> None:
    tensors = encode(Complete(model="m", prompt=(1, 2, 70000), images=(b"\x89PNG", b"x")))
    assert (tensors["token_ids"].shape, tensors["token_ids"].data) == ((3,), struct.pack("<3i", 1, 2, 70000))
    assert [base64.b64decode(picture) for picture in strings(tensors["image"])] == [b"\x89PNG", b"x"]
    assert "text_input" not in tensors


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (Complete(model="m", prompt=(1,)), "prompt"),
        (Complete(model="m", prompt="x", images=(b"x",)), "messages"),
        (Complete(model="m", prompt="x", sampling=Sampling(logprobs=0)), "logprobs"),
    ],
)
def test_options_without_a_tensor_are_refused_by_name(request_: Complete, param: str) -> None:
    with pytest.raises(UnsupportedOption) as raised:
        encode(request_, BARE)
    assert raised.value.param == param


async def test_texts_are_echoed_by_the_gateway_and_token_ids_by_the_model() -> None:
    answer = respond(text_output=["b", "c"], finish_reason=["stop", "stop"], num_output_tokens=2)
    text = replace(ASKED, echo=True, sampling=Sampling(n=2))
    assert [event.text for event in await decode(answer, request=text) if isinstance(event, Delta)] == ["xb", "xc"]
    assert encode(text)["exclude_input_in_output"].data == b"\x01"
    ids = replace(text, prompt=(1,))
    assert [event.text for event in await decode(answer, request=ids) if isinstance(event, Delta)] == ["b", "c"]
    assert encode(ids)["exclude_input_in_output"].data == b"\x00"


async def test_log_probabilities_have_the_chosen_token_first_and_the_likeliest_by_rank() -> None:
    entries = [
        {"4": {"logprob": None, "rank": None, "decoded_token": "d", "bytes": [100]}},
        {
            "5": {"logprob": -3.0, "rank": 9, "decoded_token": " e"},
            "7": {"logprob": -0.1, "rank": 1, "decoded_token": "\ufffd", "bytes": [0xF0, 0x9F]},
            "8": {"logprob": -0.5, "rank": 2, "decoded_token": "g"},
        },
        {"7": {"logprob": -1e30, "rank": 1, "decoded_token": "f", "special": True}},
    ]
    answer = respond(text_output=["x"], logprobs=[json.dumps(entries)], num_input_tokens=2, num_output_tokens=1)
    again = respond(
        text_output=[""],
        finish_reason=["stop"],
        logprobs=[json.dumps(entries[2:])],
        num_input_tokens=2,
        num_output_tokens=1,
    )
    echoed = Sampling(logprobs=2, prompt_logprobs=2)
    delta, delta_again, *_ = await decode(answer, again, request=replace(ASKED, sampling=echoed))
    first, second = Logprob("\ufffd", -0.1, b"\xf0\x9f"), Logprob("g", -0.5, b"g")
    last = Logprob("f", -9999.0, b"f")
    assert isinstance(delta, Delta)
    assert delta.logprobs == (
        TokenLogprob(Logprob("d", None, b"d"), is_prompt=True),
        TokenLogprob(Logprob(" e", -3.0, b" e"), (first, second), is_prompt=True),
        TokenLogprob(last, (last,), is_hidden=True),
    )
    assert isinstance(delta_again, Delta) and delta_again.logprobs == (TokenLogprob(last, (last,), is_hidden=True),)
    ended = respond(text_output=["x"], finish_reason=["stop"], logprobs=[json.dumps(entries)])
    request_with_special_tokens = replace(ASKED, show_special_tokens=True, sampling=Sampling(logprobs=2))
    only = (await decode(ended, request=request_with_special_tokens))[0]
    assert isinstance(only, Delta)
    assert [token.is_hidden for token in only.logprobs] == [False] * 3


def test_long_lists_of_log_probabilities_are_read_like_short_ones() -> None:
    for entries in (
        [{"1": {"logprob": -1.5, "decoded_token": 'a"]},{["é'}}, None] * 2000,
        [None] * 20_000,
        ["x" * 70_000],
    ):
        for document in (json.dumps(entries), json.dumps(entries, indent=1), json.dumps(entries) + " \n"):
            assert len(document) > 64 * 1024
            assert list(vllm_logprobs._entries(document)) == entries
    for broken in (document[:-3], document + "x", document.replace('"]', '",]'), document.replace('"]', '"}')):
        with pytest.raises((ModelFailed, ValueError)):
            list(vllm_logprobs._entries(broken))


async def test_long_lists_of_log_probabilities_do_not_block_the_loop() -> None:
    likely = {str(i): {"logprob": -1.0 * i, "rank": i, "decoded_token": "x", "bytes": [120]} for i in range(1, 21)}
    response = respond(logprobs=[json.dumps([likely] * 4000)])
    request = replace(ASKED, sampling=Sampling(logprobs=20, prompt_logprobs=20))
    reading = asyncio.create_task(vllm_logprobs.decode(response, request, 4000))
    turns = 0
    while not reading.done():
        turns += 1
        await asyncio.sleep(0)
    decoded = (await reading)[0]
    assert turns > 60
    assert len(decoded) == 4000 and all(token == decoded[0] for token in decoded) and len(decoded[0].top_logprobs) == 20
