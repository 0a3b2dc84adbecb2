"""POST /v1/embeddings."""

import base64
import struct
from typing import Any

import pytest

from tests.fakes.triton import FakeTriton
from tests.wire.openai.asking import refused
from tests.wire.serving import Gateway

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def embed(gateway: Gateway, given: Any, **more: Any) -> Any:
    return await gateway.http.post("/v1/embeddings", json={"model": "vectors", "input": given, **more})


async def test_an_answer(gateway: Gateway) -> None:
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


async def test_base64_is_of_float32(gateway: Gateway) -> None:
    data = (await embed(gateway, "three", encoding_format="base64")).json()["data"]
    assert struct.unpack("<2f", base64.b64decode(data[0]["embedding"])) == (5.0, 2.0)


@pytest.mark.parametrize(
    ("given", "rows"),
    [
        ("abc", [3.0]),
        (["a", "bb"], [1.0, 2.0]),
        ([1, 2, 3, 4], [4.0]),
        ([[1], [2, 3]], [1.0, 2.0]),
        (["x"] * 2048, [1.0] * 2048),
    ],
    ids=["text", "texts", "ids", "lists", "many"],
)
async def test_inputs(gateway: Gateway, triton: FakeTriton, given: Any, rows: list[float]) -> None:
    data = (await embed(gateway, given)).json()["data"]
    assert [entry["embedding"][0] for entry in data] == rows
    assert [entry["index"] for entry in data] == list(range(len(rows)))


@pytest.mark.parametrize("client_format", [None, "float", "base64"])
async def test_the_official_client(gateway: Gateway, client_format: Any) -> None:
    more = {} if client_format is None else {"encoding_format": client_format}
    async with gateway.client() as client:
        answer = await client.embeddings.create(model="vectors", input=["three", "e"], **more)
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
async def test_what_is_wrong_is_said_by_place(gateway: Gateway, param: str, body: dict[str, Any]) -> None:
    response = await gateway.http.post("/v1/embeddings", json={"model": "vectors", **body})
    found = response.json()["error"]["param"]
    refused(response, 400, param=found)
    assert found.startswith(param), found
