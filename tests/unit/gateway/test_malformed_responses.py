"""Responses of models as no model should send them: whatever they are, they are the model's failure, or are read."""

import json
import random
import struct
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import structlog
from tritonclient.grpc import service_pb2 as pb

from gateway.errors import GatewayError, ModelFailed, ModelTimeout
from gateway.operations.complete import Complete
from gateway.operations.embed import Embed, Embeddings
from gateway.operations.generate_image import GenerateImage, Image, PartialImage, Progress
from gateway.operations.text import Delta, Finish, Sampling
from gateway.operations.transcribe import Transcribe
from gateway.signatures.registry import SIGNATURES
from gateway.triton.model_config import ModelConfig
from gateway.triton.tensors import InferResponse
from tests.unit.gateway.model_cards import card_of


@dataclass(slots=True)
class Output:
    name: str
    datatype: str
    shape: list[int]
    raw: bytes


Outputs = list[Output]


def texts(name: str, *values: str) -> Output:
    encoded = [value.encode() for value in values]
    return Output(name, "BYTES", [len(values)], b"".join(struct.pack("<I", len(e)) + e for e in encoded))


def numbers(name: str, datatype: str, *values: float, shape: list[int] | None = None) -> Output:
    code = {"INT32": "i", "UINT32": "I", "FP32": "f", "UINT64": "Q"}[datatype]
    return Output(
        name, datatype, [len(values)] if shape is None else shape, struct.pack(f"<{len(values)}{code}", *values)
    )


LOGPROBS = json.dumps([{"7": {"logprob": -0.5, "rank": 1, "decoded_token": "a"}}])


def vllm(text: str, reason: str, logprobs: str = LOGPROBS) -> Outputs:
    return [
        texts("text_output", text),
        texts("finish_reason", reason),
        texts("logprobs", logprobs),
        numbers("num_input_tokens", "UINT32", 3, shape=[]),
        numbers("num_output_tokens", "UINT32", 1),
    ]


def batcher(text: str, index: int) -> Outputs:
    return [
        texts("text_output", text),
        numbers("sequence_index", "INT32", index),
        numbers("num_input_tokens", "INT32", 3),
        numbers("num_output_tokens", "INT32", 1),
    ]


VLLM = Complete(model="m", prompt="x", sampling=Sampling(logprobs=1))
TWO = Complete(model="m", prompt="x", sampling=Sampling(n=2, stop=("END",)))
DRAWING = GenerateImage(model="m", prompt="x", n=2, partial_images=1)
CASES: dict[str, tuple[Any, list[Outputs]]] = {
    "vllm": (VLLM, [vllm("a", "None"), vllm("b", "stop")]),
    "llmapi": (
        Complete(model="m", prompt="x"),
        [
            [texts("text_output", "a"), texts("finish_reason", "None")],
            [texts("text_output", "ab"), texts("finish_reason", "stop")],
        ],
    ),
    "tensorrt_llm": (TWO, [batcher("a", 0), batcher("b", 1), batcher("c", 0)]),
    "embedding": (
        Embed(model="m", inputs=("x", "y")),
        [[numbers("embedding", "FP32", 1.0, 2.0, 3.0, 4.0, shape=[2, 2]), numbers("num_tokens", "INT32", 1, 1)]],
    ),
    "image": (
        DRAWING,
        [
            [numbers("progress", "FP32", 0.5)],
            [texts("image", "p"), numbers("index", "INT32", 1), numbers("partial", "INT32", 0)],
            [texts("image", "a"), numbers("index", "INT32", 0), numbers("seed", "UINT64", 5)],
            [texts("image", "b"), numbers("index", "INT32", 1), numbers("seed", "UINT64", 6)],
        ],
    ),
    "transcription": (Transcribe(model="m", audio=b""), [[texts("text", "a")], [texts("text", "b")]]),
}


OPERATIONS = {
    **dict.fromkeys(("vllm", "llmapi", "tensorrt_llm"), "complete"),
    **{"embedding": "embed", "image": "generate_image", "transcription": "transcribe"},
}
OPTIONAL_INPUTS = {
    **{"sampling_parameters": "BYTES", "return_logprobs": "BOOL", "num_return_sequences": "INT32"},
    **{"num_images": "INT32", "partial_images": "INT32", "output_format": "BYTES"},
}


class Stream:
    """Responses as `gateway.triton.client.ResponseStream` gives them."""

    has_buffered = False

    def __init__(self, responses: list[pb.ModelInferResponse]) -> None:
        self._left = list(responses)

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> InferResponse:
        if not self._left:
            raise StopAsyncIteration
        return InferResponse(self._left.pop(0))

    async def aclose(self) -> None:
        self._left.clear()


def message(outputs: Outputs) -> pb.ModelInferResponse:
    response = pb.ModelInferResponse()
    for output in outputs:
        response.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
        response.raw_output_contents.append(output.raw)
    return response


async def read(name: str, request: Any, responses: list[pb.ModelInferResponse]) -> list[Any]:
    """Return the events of these responses. Raises the failure that they become."""
    signature = SIGNATURES[name]
    declared = {output.name: output.datatype for outputs in CASES[name][1] for output in outputs}
    inputs, outputs = {**signature.inputs, **OPTIONAL_INPUTS}, {**signature.outputs, **declared}
    card = card_of(ModelConfig("m", {"context_length": "100"}, inputs, outputs, b""))
    (sent,) = signature.codecs[OPERATIONS[name]].open(request, card).requests
    events: AsyncGenerator[Any] = sent.events(Stream(responses))
    with structlog.testing.capture_logs():  # of tracebacks, which take most of the time
        return [event async for event in events]


def check(request: Any, events: list[Any]) -> None:
    """Check that events can be rendered for a caller."""
    for event in events:
        match event:
            case Delta(index) | Finish(index):
                assert index in range(request.sampling.n)
            case Image(index) | PartialImage(index):
                assert index in range(request.n)
            case Progress(fraction):
                assert 0 <= fraction <= 1
            case Embeddings(vectors):
                assert len(vectors) == len(request.inputs)


@pytest.mark.parametrize("name", CASES)
async def test_valid_responses_are_read(name: str) -> None:
    request, responses = CASES[name]
    events = await read(name, request, list(map(message, responses)))
    assert events
    check(request, events)


def _corrupt(rng: random.Random, responses: list[Outputs]) -> list[pb.ModelInferResponse]:
    """The same responses with one or two things wrong."""
    copies = [[replace(output, shape=list(output.shape)) for output in outputs] for outputs in responses]
    without_contents = None
    for _ in range(rng.randint(1, 2)):
        outputs = rng.choice(copies)
        if not outputs:
            continue
        output = rng.choice(outputs)
        kinds: list[Callable[[Output, list[Output]], Any]] = [
            lambda o, os: os.remove(o),
            lambda o, os: os.append(replace(o)),
            lambda o, os: os.clear(),
            lambda o, os: copies.append(list(os)),
            lambda o, os: copies.reverse(),
            lambda o, os: copies.pop(),
            lambda o, os: setattr(o, "datatype", rng.choice(["BYTES", "INT64", "FP32", "UINT32", "BOOL", ""])),
            lambda o, os: setattr(o, "raw", o.raw[: rng.randint(0, len(o.raw))]),
            lambda o, os: setattr(o, "raw", o.raw + o.raw),
            lambda o, os: setattr(o, "raw", o.raw + b"\xff" * rng.randint(1, 9)),
            lambda o, os: setattr(o, "raw", rng.randbytes(len(o.raw))),
            lambda o, os: setattr(o, "shape", rng.choice([[], [0], [1, 1], [-1, 2], [2, 2, 2], [2**40, 4]])),
        ]
        rng.choice(kinds)(output, outputs)
        if not copies:
            break
        if rng.random() < 0.05:
            without_contents = rng.randrange(len(copies))
    messages = list(map(message, copies))
    if (
        without_contents is not None
        and without_contents < len(messages)
        and messages[without_contents].raw_output_contents
    ):
        del messages[without_contents].raw_output_contents[-1]
    return messages


@pytest.mark.parametrize("name", CASES)
async def test_any_corruption_of_responses_is_a_failure_of_the_model(name: str) -> None:
    request, responses = CASES[name]
    rng = random.Random(7)
    failed = 0
    for _ in range(400):
        try:
            check(request, await read(name, request, _corrupt(rng, responses)))
        except GatewayError as error:
            assert isinstance(error, ModelFailed | ModelTimeout), error
            failed += 1
    assert failed > 40


_ODD_LOGPROBS = [
    "{",
    "7",
    '[{"7": {}}]',
    '[{"7": {"logprob": "x", "rank": 1, "decoded_token": "a"}}]',
    '[{"7": {"logprob": null, "rank": 1, "decoded_token": 5}}]',
    '[{"7": {"logprob": -1, "rank": [], "decoded_token": "a"}}]',
    '[{"7": {"logprob": -1, "rank": 1, "decoded_token": "a", "bytes": [999]}}]',
    '[{"7": {"logprob": -1, "rank": 1, "decoded_token": "\\ud800", "bytes": [97]}}]',
    "[" * 100_000,
]


@pytest.mark.parametrize("logprobs", _ODD_LOGPROBS)
async def test_odd_log_probabilities(logprobs: str) -> None:
    with pytest.raises(ModelFailed):
        await read("vllm", VLLM, [message(vllm("a", "stop", logprobs))])


@pytest.mark.parametrize(
    ("outputs", "why"),
    [
        ([texts("text_output", "a", "b"), texts("finish_reason", "stop", "stop")], "sent 2 answers; 1"),
        ([texts("text_output"), texts("finish_reason", "stop")], "sent 0 answers; 1"),
        ([texts("finish_reason", "stop")], "sent 0 answers; 1"),
        ([texts("text_output", "a")], "ended the stream before"),
        ([numbers("text_output", "INT32", 5)], "'text_output' has the datatype INT32; expected BYTES"),
        ([Output("text_output", "BYTES", [1], b"\x09\0\0\0ab")], "'text_output' is truncated"),
    ],
)
async def test_malformed_outputs_are_described(outputs: Outputs, why: str) -> None:
    with pytest.raises(ModelFailed, match=why):
        await read("vllm", Complete(model="m", prompt="x"), [message(outputs)])


async def test_an_answer_that_goes_on_after_its_end_is_a_failure() -> None:
    with pytest.raises(ModelFailed, match="it had finished"):
        await read("vllm", VLLM, [message(vllm("a", "stop")), message(vllm("b", "None"))])


@pytest.mark.parametrize("shape", [[], [1], [1, 1], [7]])
async def test_the_shape_of_a_count_does_not_matter(shape: list[int]) -> None:
    outputs = [
        texts("text_output", "a"),
        texts("finish_reason", "stop"),
        numbers("num_input_tokens", "UINT32", 3, shape=shape),
        numbers("num_output_tokens", "UINT32", 1, shape=shape),
    ]
    *_, usage = await read("vllm", Complete(model="m", prompt="x"), [message(outputs)])
    assert (usage.prompt_tokens, usage.completion_tokens) == (3, 1)
