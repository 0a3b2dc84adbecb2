"""POST /v1/embeddings: https://platform.openai.com/docs/api-reference/embeddings"""

import asyncio
import base64
from collections.abc import Callable
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Request
from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema
from starlette.responses import Response

from gateway.dialects.openai.response_models import CreateEmbeddingResponse
from gateway.dialects.openai.wire import token_ids
from gateway.dialects.openai.wire.error_models import OPENAI_DOCS
from gateway.dialects.openai.wire.errors import OPENAI_ERRORS
from gateway.errors import InvalidRequest, UnsupportedOption
from gateway.http import delivery
from gateway.http.json_limits import check_text_length
from gateway.http.offload import offload_if_large
from gateway.http.openapi_responses import INFERENCE_FAILURES
from gateway.http.routes import route_class
from gateway.http.wire_model import WireModel
from gateway.models.catalog import Catalog
from gateway.operations.embed import Embed, gather

MAX_INPUTS = 2048
"""Inputs of one request, OpenAI's own limit."""
MAX_JSON_VALUES = 1_100_000
"""JSON values of a body: room for `MAX_INPUTS` inputs of 512 token ids each."""
_BYTES_PER_YIELD = 256 * 1024
"""Bytes of vectors that are rendered before the event loop runs others: about 4 ms."""
router = APIRouter(route_class=route_class(OPENAI_ERRORS, max_json_values=MAX_JSON_VALUES))

_Text = {"type": "string", "minLength": 1}
_Ids = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}, "minItems": 1}
# Parsed by `_parse_inputs`: a union would have pydantic try each alternative for each of two thousand texts.
Input = Annotated[
    Any,
    WithJsonSchema(
        {
            "anyOf": [
                _Text,
                {"type": "array", "items": _Text, "minItems": 1, "maxItems": MAX_INPUTS},
                _Ids,
                {"type": "array", "items": _Ids, "minItems": 1, "maxItems": MAX_INPUTS},
            ]
        }
    ),
]


def _check_not_zero(tokens: int) -> int:
    if tokens == 0:
        raise ValueError("must be a positive number of tokens, or -1 for the maximum of the model")
    return tokens


class CreateEmbeddingRequest(WireModel):
    """The body of an embedding request."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "all-minilm-l6-v2", "input": ["A text", "and another"]}]}
    )

    model: str
    input: Input
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int | None, Field(ge=1, lt=2**31)] = None
    user: str | None = None
    # As in vLLM, which also keeps the beginning of an input.
    truncate_prompt_tokens: Annotated[int, Field(ge=-1, lt=2**31), AfterValidator(_check_not_zero)] | None = None
    truncation_side: Annotated[Any, WithJsonSchema({"enum": ["right", None]})] = None


_RESPONSES = OPENAI_DOCS.responses(
    CreateEmbeddingResponse,
    INFERENCE_FAILURES,
    description="A vector for each input.",
    example={
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.0345, -0.0128, 0.0711]}],
        "model": "all-minilm-l6-v2",
        "usage": {"prompt_tokens": 5, "total_tokens": 5},
        "code": 0,
        "message": "success",
    },
)


@router.post("/v1/embeddings", tags=["Embeddings"], summary="Turn texts into vectors", responses=_RESPONSES)
async def create_embedding(body: CreateEmbeddingRequest, request: Request) -> Response:
    """Return a vector for each input."""
    catalog: Catalog = request.app.state.catalog
    max_characters = request.app.state.settings.prompt_max_characters
    if body.truncation_side not in (None, "right"):
        raise UnsupportedOption(
            "'truncation_side' must be 'right': inputs are truncated at their end.", param="truncation_side"
        )
    inputs = await offload_if_large(request.state.trace, lambda: _parse_inputs(body.input, max_characters))
    embed = Embed(
        model=body.model, inputs=inputs, dimensions=body.dimensions, truncate_prompt_tokens=body.truncate_prompt_tokens
    )
    events = catalog.run(catalog.get(body.model), embed, request.state.trace)
    vectors, tokens = await delivery.whole(request, gather(events))
    render = _base64 if body.encoding_format == "base64" else _floats
    answer = {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(await _render_vectors(render, vectors))
        ],
        "model": body.model,
        **({"usage": {"prompt_tokens": tokens.prompt_tokens, "total_tokens": tokens.prompt_tokens}} if tokens else {}),
        "code": 0,
        "message": "success",
    }
    return Response(orjson.dumps(answer), media_type="application/json")


async def _render_vectors(render: Callable[[bytes], Any], vectors: tuple[bytes, ...]) -> list[Any]:
    """Render every vector. The event loop runs others after each `_BYTES_PER_YIELD`."""
    rendered = []
    size = 0
    for vector in vectors:
        rendered.append(render(vector))
        size += len(vector)
        if size >= _BYTES_PER_YIELD:
            size = 0
            await asyncio.sleep(0)
    return rendered


def _base64(vector: bytes) -> str:
    return base64.b64encode(vector).decode()


def _floats(vector: bytes) -> Any:
    """Return a float32 vector as JSON numbers, each with the digits of the equal float64, as OpenAI writes them."""
    return orjson.Fragment(orjson.dumps(memoryview(vector).cast("f").tolist()))


def _parse_inputs(given: Any, max_characters: int) -> tuple[str, ...] | tuple[tuple[int, ...], ...]:
    """Return the inputs: texts, of at most `max_characters` together, or lists of token ids.

    Raises `InvalidRequest` with the path of what is wrong, and `RequestTooLarge`.
    """
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, list):
        raise InvalidRequest("'input' must be a string, a list of strings, or token ids.", param="input")
    if not given:
        raise InvalidRequest("'input' must not be empty.", param="input")
    if type(given[0]) is int:
        return (_parse_token_ids(given, "input"),)
    if len(given) > MAX_INPUTS:
        raise InvalidRequest(f"'input' must have at most {MAX_INPUTS} inputs, not {len(given)}.", param="input")
    if isinstance(given[0], list):
        return tuple(_parse_token_ids(ids, f"input[{i}]") for i, ids in enumerate(given))
    for i, text in enumerate(given):
        if not isinstance(text, str) or not text:
            path = f"input[{i}]" if len(given) > 1 else "input"
            raise InvalidRequest(f"'{path}' must be a non-empty string.", param=path)
    check_text_length(sum(map(len, given)), max_characters, param="input")
    return tuple(given)


def _parse_token_ids(ids: Any, path: str) -> tuple[int, ...]:
    if not isinstance(ids, list) or not ids:
        raise InvalidRequest(f"'{path}' must be a non-empty list of token ids.", param=path)
    wrong = token_ids.first_invalid(ids)
    if wrong is not None:
        raise InvalidRequest(f"'{path}[{wrong}]' must be a token id.", param=f"{path}[{wrong}]")
    return tuple(ids)
