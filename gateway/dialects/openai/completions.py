"""POST /v1/completions: https://platform.openai.com/docs/api-reference/completions"""

import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Request
from pydantic import ConfigDict, Field, WithJsonSchema
from starlette.responses import Response

from gateway.dialects.openai.completions_responses import ChoiceRenderer, CompletionChunkRenderer, split_logprobs
from gateway.dialects.openai.response_models import CreateCompletionResponse, CreateCompletionStreamResponse
from gateway.dialects.openai.wire import token_ids
from gateway.dialects.openai.wire.error_models import OPENAI_DOCS
from gateway.dialects.openai.wire.errors import OPENAI_ERRORS
from gateway.dialects.openai.wire.sampling import (
    STREAM_OPTIONS_SCHEMA,
    SamplingFields,
    UnsupportedField,
    never_neutral,
    reject_unsupported_fields,
    render_usage,
)
from gateway.dialects.openai.wire.structured_outputs import ResponseFormat
from gateway.errors import GatewayError, InvalidRequest, RequestTooLarge, UnsupportedOption
from gateway.http import delivery
from gateway.http.json_limits import check_text_length
from gateway.http.offload import offload_if_large
from gateway.http.openapi_responses import INFERENCE_FAILURES
from gateway.http.routes import route_class
from gateway.models.catalog import Catalog
from gateway.operations.complete import Complete, gather, merge
from gateway.operations.text import TextEvent
from gateway.settings import Settings

MAX_PROMPTS = 128
"""Prompts of one request, and answers: prompts times `n`."""
_MAX_PROMPT_LOGPROBS = 2_000_000
"""Entries in the log probabilities of all prompts, 150 bytes each. The check counts characters, of which a token has at
least one and usually four."""
MAX_JSON_VALUES = 600_000
"""JSON values of a body: room for `MAX_PROMPTS` prompts of 4,096 token ids each."""
router = APIRouter(route_class=route_class(OPENAI_ERRORS, max_json_values=MAX_JSON_VALUES))

_Ids = {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}, "minItems": 1}
# Parsed by `_parse_prompts`: for a union of lists, pydantic would try each alternative for each element.
Prompt = Annotated[
    Any,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_PROMPTS},
                _Ids,
                {"type": "array", "items": _Ids, "minItems": 1, "maxItems": MAX_PROMPTS},
                {"type": "null"},
            ]
        }
    ),
]


class CreateCompletionRequest(SamplingFields):
    """The body of a completion request."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "smollm2-135m-instruct", "prompt": "Once upon a time", "max_tokens": 5}],
            **STREAM_OPTIONS_SCHEMA,
        }
    )

    prompt: Prompt = None
    max_tokens: Annotated[int | None, Field(ge=0, lt=2**63)] = None
    echo: bool | None = None
    logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    response_format: ResponseFormat | None = None
    # Known and not supported: a request with a value that has an effect is refused, and the error names the field.
    best_of: Annotated[Any, WithJsonSchema({"type": ["integer", "null"], "description": "As many as 'n'."})] = None
    suffix: Annotated[Any, WithJsonSchema({"enum": ["", None]})] = None
    add_special_tokens: Annotated[Any, WithJsonSchema({"enum": [True, None]})] = None
    prompt_embeds: UnsupportedField = None


UNSUPPORTED_FIELDS: Mapping[str, Callable[[Any], bool]] = {
    "suffix": lambda value: value == "",
    "add_special_tokens": lambda value: value is True,
    "prompt_embeds": never_neutral,
}


_EXAMPLE_HEAD = {
    "id": "cmpl-4f1c2a7d",
    "object": "text_completion",
    "created": 1763683200,
    "model": "smollm2-135m-instruct",
    "system_fingerprint": "fp_70f0d4a9c3",
}
_RESPONSES = OPENAI_DOCS.responses(
    CreateCompletionResponse,
    INFERENCE_FAILURES,
    description="The continuation; with `stream`, events that add to it.",
    example={
        **_EXAMPLE_HEAD,
        "choices": [{"text": ", there was a girl", "index": 0, "logprobs": None, "finish_reason": "length"}],
        "usage": {"prompt_tokens": 4, "completion_tokens": 5, "total_tokens": 9},
        "code": 0,
        "message": "success",
    },
    event=CreateCompletionStreamResponse,
    event_example={
        **_EXAMPLE_HEAD,
        "choices": [{"text": ", there", "index": 0, "logprobs": None, "finish_reason": None}],
    },
)


@router.post("/v1/completions", tags=["Completions"], summary="Continue a text", responses=_RESPONSES)
async def create_completion(body: CreateCompletionRequest, request: Request) -> Response:
    """Continue `prompt`, or each of several, whole or as server-sent events."""
    catalog: Catalog = request.app.state.catalog
    settings: Settings = request.app.state.settings
    max_characters, default_max_tokens = settings.prompt_max_characters, settings.completions_max_tokens
    operations = await offload_if_large(request.state.trace, lambda: parse(body, max_characters, default_max_tokens))
    streams = body.wants_stream
    model = catalog.get(body.model)
    head = {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": int(time.time()),
        "model": body.model,
        "system_fingerprint": model.fingerprint,
    }
    trace = request.state.trace
    if len(operations) == 1:
        events = catalog.run(model, operations[0], trace)
    else:
        streams_of_prompts = [
            _with_prompt_index(i, catalog.run_by_name(body.model, operation, trace))
            for i, operation in enumerate(operations)
        ]
        events = merge(streams_of_prompts, body.n or 1)
    choices = ChoiceRenderer(operations, logprobs=body.logprobs is not None)
    if streams:
        chunks = CompletionChunkRenderer(head, choices, include_usage=body.include_usage)
        events = split_logprobs(events) if body.logprobs is not None else events
        return await delivery.sse(request, events, chunks.render, OPENAI_ERRORS.render_event, b"[DONE]")
    answers, usage = await delivery.whole(request, gather(events))
    answer = {
        **head,
        "choices": [await choices.whole(i, answers.pop(0)) for i in range(len(answers))],
        **({"usage": render_usage(usage)} if usage else {}),
        "code": 0,
        "message": "success",
    }
    return Response(orjson.dumps(answer), media_type="application/json")


async def _with_prompt_index(i: int, events: AsyncGenerator[TextEvent]) -> AsyncGenerator[TextEvent]:
    """Yield the events of prompt `i`. An error about the prompt names its index."""
    try:
        async with aclosing(events):
            async for event in events:
                yield event
    except GatewayError as error:
        if error.param == "prompt":
            error.param = f"prompt[{i}]"
        raise


def parse(body: CreateCompletionRequest, max_characters: int, default_max_tokens: int) -> list[Complete]:
    """Return one operation for each prompt of `body`.

    All prompts together may have `max_characters`; with `echo`, so may the prompts of all answers together. An answer
    has at most `default_max_tokens` tokens where `body` has no `max_tokens`; 0: only the context limits it.

    Raises `InvalidRequest`, `UnsupportedOption` and `RequestTooLarge`.
    """
    reject_unsupported_fields(body, UNSUPPORTED_FIELDS)
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise UnsupportedOption("'best_of' is supported only where it equals 'n'.", param="best_of")
    structure = body.response_format.to_structure() if body.response_format else None
    echo = bool(body.echo)
    limit = body.max_tokens
    if limit is None and default_max_tokens:
        limit = max(default_max_tokens, body.min_tokens or 0)
    sampling = body.sampling(limit, structure, logprobs=body.logprobs, prompt_logprobs=body.logprobs if echo else None)
    prompts = _parse_prompts(body.prompt)
    check_text_length(sum(len(prompt) for prompt in prompts if isinstance(prompt, str)), max_characters, param="prompt")
    if len(prompts) * sampling.n > MAX_PROMPTS:
        raise InvalidRequest(f"The number of answers, prompts times 'n', must be at most {MAX_PROMPTS}.", param="n")
    if echo and sum(map(len, prompts)) * sampling.n > max_characters:
        raise RequestTooLarge(
            f"With 'echo', prompts times 'n' must have at most {max_characters} characters or token ids.",
            param="echo",
        )
    per_token = (body.logprobs or 0) + 1
    if echo and body.logprobs is not None and sum(map(len, prompts)) * sampling.n * per_token > _MAX_PROMPT_LOGPROBS:
        raise RequestTooLarge(
            "With 'echo' and 'logprobs', the characters or token ids of the prompts, times 'n', times 'logprobs' + 1, "
            f"must be at most {_MAX_PROMPT_LOGPROBS}.",
            param="logprobs",
        )
    return [
        Complete(model=body.model, prompt=prompt, echo=echo, sampling=sampling, non_streaming=not body.wants_stream)
        for prompt in prompts
    ]


def _parse_prompts(prompt: Any) -> list[str | tuple[int, ...]]:
    """Return the prompts. A list holds strings, the token ids of one prompt, or lists of token ids.

    None is the empty text. Our models and most tokenizers turn it into the token that begins a sequence. Raises
    `InvalidRequest`.
    """
    if prompt is None or isinstance(prompt, str):
        return [prompt or ""]
    if not isinstance(prompt, list):
        raise _invalid_prompt("prompt")
    if not prompt:
        raise InvalidRequest("'prompt' must not be empty.", param="prompt")
    if type(prompt[0]) is int:
        return [_parse_token_ids(prompt, "prompt")]
    if len(prompt) > MAX_PROMPTS:
        raise InvalidRequest(f"'prompt' must have at most {MAX_PROMPTS} prompts.", param="prompt")
    if isinstance(prompt[0], str):
        for i, text in enumerate(prompt):
            if not isinstance(text, str):
                raise InvalidRequest(f"'prompt[{i}]' must be a string, as 'prompt[0]' is one.", param=f"prompt[{i}]")
        return list(prompt)
    return [_parse_token_ids(ids, f"prompt[{i}]") for i, ids in enumerate(prompt)]


def _parse_token_ids(ids: Any, path: str) -> tuple[int, ...]:
    if not isinstance(ids, list):
        raise _invalid_prompt(path)
    if not ids:
        raise InvalidRequest(f"'{path}' must not be empty.", param=path)
    wrong = token_ids.first_invalid(ids)
    if wrong is not None:
        raise InvalidRequest(f"'{path}[{wrong}]' must be a token id.", param=f"{path}[{wrong}]")
    return tuple(ids)


def _invalid_prompt(path: str) -> InvalidRequest:
    return InvalidRequest(
        f"'{path}' must be a string, a list of strings, token ids, or a list of lists of token ids.", param=path
    )
