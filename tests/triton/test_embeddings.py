"""Embeddings of the real default model through the gateway."""

import base64
import math
import struct
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from tokenizers import Tokenizer

from tests.triton.conftest import PATIENCE
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.text_requests import check_error
from tritonic.embedded import EmbeddedTriton

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]

NAME = "all-minilm-l6-v2"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def embeddings(embedding_triton: EmbeddedTriton) -> AsyncIterator[RunningGateway]:
    async with run_gateway(embedding_triton.grpc_url, triton_secret=embedding_triton.secret) as gateway:
        gateway.http.timeout = httpx.Timeout(PATIENCE)
        yield gateway


async def embed(gateway: RunningGateway, given: Any, **more: Any) -> dict[str, Any]:
    response = await gateway.http.post("/v1/embeddings", json={"model": NAME, "input": given, **more})
    assert response.status_code == 200, response.text
    return dict(response.json())


def rows(answer: dict[str, Any]) -> list[list[float]]:
    return [entry["embedding"] for entry in answer["data"]]


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


async def test_similar_texts_have_similar_embeddings(embeddings: RunningGateway) -> None:
    answer = await embed(embeddings, ["guitar", "instrument", "stocks"])
    guitar, instrument, stocks = rows(answer)
    assert all(math.isclose(cosine(row, row), 1, abs_tol=1e-5) for row in (guitar, instrument, stocks))
    # Measured with sentence-transformers on PyTorch.
    assert math.isclose(cosine(guitar, instrument), 0.70202, abs_tol=1e-4)
    assert math.isclose(cosine(guitar, stocks), 0.19971, abs_tol=1e-4)
    assert answer["usage"] == {"prompt_tokens": 9, "total_tokens": 9}


async def test_an_embedding_does_not_depend_on_the_batch_or_the_format(
    embeddings: RunningGateway, embedding_folder: Path
) -> None:
    (alone,) = rows(await embed(embeddings, "A guitar."))
    crowd = rows(await embed(embeddings, ["x " * size for size in range(1, 60)] + ["A guitar."]))
    encoded = (await embed(embeddings, "A guitar.", encoding_format="base64"))["data"][0]["embedding"]
    tokenizer = Tokenizer.from_file(str(embedding_folder / "1" / "tokenizer.json"))
    tokenizer.no_padding()
    ids = tokenizer.encode("A guitar.").ids
    (by_ids,) = rows(await embed(embeddings, ids))
    for other in (crowd[-1], list(struct.unpack("<384f", base64.b64decode(encoded))), by_ids):
        assert max(abs(a - b) for a, b in zip(alone, other, strict=True)) < 1e-5


async def test_errors_of_the_model_name_the_field_of_the_request(embeddings: RunningGateway) -> None:
    async def post(given: Any, **more: Any) -> Any:
        return await embeddings.http.post("/v1/embeddings", json={"model": NAME, "input": given, **more})

    check_error(await post(["a", "word " * 400]), 400, code="context_length_exceeded", param="input")
    check_error(await post("a", dimensions=100), 400, code="unsupported_parameter", param="dimensions")
    check_error(await post([[5, 2**30]]), 400, param="input")


async def test_a_text_that_is_too_long_is_truncated_on_request(embeddings: RunningGateway) -> None:
    long, short = "guitar " * 400, "guitar " * 10
    refusal = await embeddings.http.post("/v1/embeddings", json={"model": NAME, "input": ["a", long]})
    assert "'truncate_prompt_tokens'" in check_error(refusal, 400, code="context_length_exceeded", param="input")
    whole = await embed(embeddings, ["a", long], truncate_prompt_tokens=-1)
    assert whole["usage"]["prompt_tokens"] == 3 + 256
    cut, same = await embed(embeddings, long, truncate_prompt_tokens=12), await embed(embeddings, short)
    assert (cut["usage"], same["usage"]) == ({"prompt_tokens": 12, "total_tokens": 12},) * 2
    assert math.isclose(cosine(rows(cut)[0], rows(same)[0]), 1, abs_tol=1e-5)
