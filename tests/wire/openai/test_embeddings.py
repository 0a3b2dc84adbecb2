"""POST /v1/embeddings."""

import asyncio
import base64
import struct
from typing import Any

import orjson
import pytest

from gateway.dialects.openai.embeddings import _floats, _render_vectors
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway
from tests.wire.openai.text_requests import check_error

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def embed(gateway: RunningGateway, texts: Any, **options: Any) -> Any:
    return await gateway.http.post("/v1/embeddings", json={"model": "vectors", "input": texts, **options})


async def test_an_answer(gateway: RunningGateway) -> None:
    response = await embed(gateway, ["three", "e"])
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [5.0, 2.0]},
            {"object": "embedding", "index": 1, "embedding": [1.0, 1.0]},
        ],
        "model": "vectors",
        "usage": {"prompt_tokens": 6, "total_tokens": 6},
        "code": 0,
        "message": "success",
    }


async def test_base64_is_of_float32(gateway: RunningGateway) -> None:
    data = (await embed(gateway, "three", encoding_format="base64")).json()["data"]
    assert struct.unpack("<2f", base64.b64decode(data[0]["embedding"])) == (5.0, 2.0)


@pytest.mark.parametrize(
    ("texts", "rows"),
    [
        ("abc", [3.0]),
        (["a", "bb"], [1.0, 2.0]),
        ([1, 2, 3, 4], [4.0]),
        ([[1], [2, 3]], [1.0, 2.0]),
        (["x"] * 2048, [1.0] * 2048),
    ],
    ids=["text", "texts", "ids", "lists", "many"],
)
async def test_inputs(gateway: RunningGateway, triton: FakeTriton, texts: Any, rows: list[float]) -> None:
    data = (await embed(gateway, texts)).json()["data"]
    assert [entry["embedding"][0] for entry in data] == rows
    assert [entry["index"] for entry in data] == list(range(len(rows)))


async def test_rendering_many_vectors_does_not_block_other_requests() -> None:
    """Rendering two million numbers at once would block the event loop for most of a second."""
    values = [i / 7 for i in range(1024)]
    vectors = (struct.pack("<1024f", *values),) * 512
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other_requests = asyncio.create_task(others())
    await asyncio.sleep(0)
    before = turns
    rendered = await _render_vectors(_floats, vectors)
    assert turns - before >= 8
    other_requests.cancel()
    rows = orjson.loads(orjson.dumps(rendered))
    assert rows == [list(struct.unpack("<1024f", vectors[0]))] * 512


@pytest.mark.parametrize("client_format", [None, "float", "base64"])
async def test_the_official_client(gateway: RunningGateway, client_format: Any) -> None:
    options = {} if client_format is None else {"encoding_format": client_format}
    async with gateway.client() as client:
        answer = await client.embeddings.create(model="vectors", input=["three", "e"], **options)
    vectors: list[Any] = [entry.embedding for entry in answer.data]
    if client_format == "base64":
        vectors = [list(struct.unpack("<2f", base64.b64decode(vector))) for vector in vectors]
    assert vectors == [[5.0, 2.0], [1.0, 1.0]]


@pytest.mark.parametrize(
    ("param", "body"),
    [
        ("input", {"input": ""}),
        ("input", {"input": []}),
        ("input", {"input": None}),
        ("input", {"input": {"text": "x"}}),
        ("input[1]", {"input": ["a", ""]}),
        ("input[1]", {"input": ["a", 5]}),
        ("input[0]", {"input": [[]]}),
        ("input[0]", {"input": [-1]}),
        ("input", {"input": ["x"] * 2049}),
        ("encoding_format", {"input": "x", "encoding_format": "hex"}),
        ("dimensions", {"input": "x", "dimensions": 0}),
        ("dimensions", {"input": "x", "dimensions": 1}),
        ("model", {"input": "x", "model": 5}),
        ("model", {"input": "x", "model": "hello"}),
    ],
)
async def test_invalid_values_are_named_by_place(gateway: RunningGateway, param: str, body: dict[str, Any]) -> None:
    response = await gateway.http.post("/v1/embeddings", json={"model": "vectors", **body})
    param_of_error = response.json()["error"]["param"]
    check_error(response, 400, param=param_of_error)
    assert param_of_error.startswith(param), param_of_error


LONG = "e" * 300


@pytest.mark.parametrize(
    ("texts", "cut", "rows"),
    [
        ([LONG, "abc"], -1, [256.0, 3.0]),
        ([LONG, "abc"], 2, [2.0, 2.0]),
        (LONG, 10, [10.0]),
        ([7] * 300, 10, [10.0]),
        ([[7] * 300, [8, 9]], -1, [256.0, 2.0]),
    ],
)
async def test_long_inputs_are_truncated_on_request(
    gateway: RunningGateway, texts: Any, cut: int, rows: list[float]
) -> None:
    answer = (
        await embed(gateway, texts, model="short-vectors", truncate_prompt_tokens=cut, truncation_side="right")
    ).json()
    assert [entry["embedding"][0] for entry in answer["data"]] == rows
    assert answer["usage"]["prompt_tokens"] == sum(rows)


async def test_truncation_options_reach_the_model(gateway: RunningGateway, triton: FakeTriton) -> None:
    for model, options, arrives in (
        ("vectors", {}, {}),
        ("vectors", {"truncate_prompt_tokens": None}, {}),
        ("vectors", {"truncate_prompt_tokens": -1}, {"truncate": [True]}),
        ("older-vectors", {"truncate_prompt_tokens": -1}, {"truncate": [True]}),
        ("vectors", {"truncate_prompt_tokens": 5}, {"truncate_prompt_tokens": [5]}),
    ):
        before = len(triton.calls)
        assert (await embed(gateway, "a", model=model, **options)).status_code == 200
        (call,) = triton.calls[before:]
        assert {name: values for name, values in call.tensors.items() if name.startswith("truncate")} == arrives


async def test_long_inputs_are_refused_with_advice(gateway: RunningGateway) -> None:
    response = await embed(gateway, ["abc", LONG], model="short-vectors")
    sentence = check_error(response, 400, code="context_length_exceeded", param="input")
    assert "Input 1 has 300 tokens" in sentence and "'truncate_prompt_tokens'" in sentence


@pytest.mark.parametrize(
    ("options", "param", "code"),
    [
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens", "invalid_value"),
        ({"truncate_prompt_tokens": -2}, "truncate_prompt_tokens", "invalid_value"),
        ({"truncate_prompt_tokens": "5"}, "truncate_prompt_tokens", "invalid_value"),
        ({"truncate_prompt_tokens": 5, "truncation_side": "left"}, "truncation_side", "unsupported_parameter"),
        ({"truncate_prompt_tokens": 5, "model": "older-vectors"}, "truncate_prompt_tokens", "unsupported_parameter"),
    ],
)
async def test_invalid_truncation_options_are_refused(
    gateway: RunningGateway, options: Any, param: str, code: str
) -> None:
    check_error(await embed(gateway, "a", **options), 400, code=code, param=param)
