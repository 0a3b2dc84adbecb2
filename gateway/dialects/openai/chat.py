"""POST /v1/chat/completions: https://platform.openai.com/docs/api-reference/chat

Seeds: the standard document's text model, the concise reference's chat, the relay's chat.
"""

import time
import uuid
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Request
from pydantic import ConfigDict, Field, WithJsonSchema
from starlette.responses import Response

from gateway import delivery
from gateway.catalog import Catalog
from gateway.dialects.openai import documented, errors, tools
from gateway.dialects.openai.answers import CreateChatCompletionResponse, CreateChatCompletionStreamResponse
from gateway.dialects.openai.chat_answers import Chunks, render
from gateway.dialects.openai.messages import Message, Reading, WriteDown
from gateway.dialects.openai.sampling import (
    STREAM_OPTIONS,
    NoList,
    Nothing,
    NotTrue,
    SamplingFields,
    is_empty,
    is_false,
    nothing,
    refuse,
)
from gateway.dialects.openai.structure import ResponseFormat
from gateway.dialects.openai.tools import ToolDefinition, WireToolChoice
from gateway.dialects.route import route_class
from gateway.errors import InvalidRequest, UnsupportedOption
from gateway.operations import transcribe
from gateway.operations.chat import Chat, gather
from gateway.operations.chat import Message as Turn
from gateway.operations.transcribe import Transcribe

router = APIRouter(route_class=route_class(errors.render))


class CreateChatCompletionRequest(SamplingFields):
    """The body of a chat request. Fields not named here are ignored; docs/dialects.md lists which are common."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model": "smollm2-135m-instruct",
                    "messages": [{"role": "user", "content": "What is the capital of France?"}],
                    "max_completion_tokens": 32,
                },
                {
                    "model": "smollm2-135m-instruct",
                    "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
                    "tools": [
                        {
                            "type": "function",
                            "function": {
                                "name": "get_weather",
                                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
                            },
                        }
                    ],
                    "tool_choice": "required",
                    "stream": True,
                },
            ],
            **STREAM_OPTIONS,
        }
    )

    # Without `fail_fast`, a body of a megabyte could hold half a million errors to be written down.
    messages: Annotated[list[Message], Field(min_length=1, max_length=4096, fail_fast=True)]
    max_completion_tokens: Annotated[int | None, Field(ge=1, lt=2**63)] = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int | None, Field(ge=0, le=20)] = None
    response_format: ResponseFormat | None = None
    tools: Annotated[list[ToolDefinition], Field(max_length=128, fail_fast=True)] | None = None
    tool_choice: WireToolChoice | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    # Known, and not carried: a value that asks for something is refused by name.
    audio: Nothing = None
    chat_template: Nothing = None
    add_special_tokens: NotTrue = None
    documents: NoList = None
    echo: NotTrue = None
    mm_processor_kwargs: Annotated[Any, WithJsonSchema({"type": ["object", "null"], "maxProperties": 0})] = None
    function_call: Annotated[Any, WithJsonSchema({"enum": ["auto", "none", None]})] = None
    functions: NoList = None
    modalities: Annotated[Any, WithJsonSchema({"enum": [["text"], None]})] = None
    prediction: Nothing = None
    web_search_options: Nothing = None


NOT_CARRIED: Mapping[str, Callable[[Any], bool]] = {
    "functions": is_empty,
    "function_call": lambda value: value in ("auto", "none"),
    "modalities": lambda value: value == ["text"],
    "add_special_tokens": is_false,
    "audio": nothing,
    "chat_template": nothing,
    "documents": is_empty,
    "echo": is_false,
    "mm_processor_kwargs": is_empty,
    "prediction": nothing,
    "web_search_options": nothing,
}


_EXAMPLE_HEAD = {
    "created": 1763683200,
    "model": "smollm2-135m-instruct",
    "system_fingerprint": "fp_70f0d4a9c3",
}
_RESPONSES = documented.responses(
    CreateChatCompletionResponse,
    documented.ASKING,
    description="The answer, or, with `stream`, events that add to it.",
    example={
        "id": "chatcmpl-4f1c2a7d",
        "object": "chat.completion",
        **_EXAMPLE_HEAD,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "The capital of France is Paris.", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 36, "completion_tokens": 8, "total_tokens": 44},
        "code": 0,
        "message": "success",
    },
    event=CreateChatCompletionStreamResponse,
    event_example={
        "id": "chatcmpl-4f1c2a7d",
        "object": "chat.completion.chunk",
        **_EXAMPLE_HEAD,
        "choices": [{"index": 0, "delta": {"content": "The capital"}, "logprobs": None, "finish_reason": None}],
    },
)


@router.post("/v1/chat/completions", tags=["Chat"], summary="Answer a conversation", responses=_RESPONSES)
async def create_chat_completion(body: CreateChatCompletionRequest, request: Request) -> Response:
    """Answer `messages`, whole or as server-sent events."""
    catalog: Catalog = request.app.state.catalog
    refuse(body, NOT_CARRIED)
    streams = body.streams
    model = catalog.get(body.model)
    reading = Reading(
        request.app.state.media, sees="image" in model.modalities, write_down=_writing_down(catalog, request)
    )
    # A caller who hangs up while pictures are fetched is noticed, too.
    turns = await delivery.whole(request, reading.turns(body.messages))
    chat = parse(body, turns)
    head = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": body.model,
        "system_fingerprint": model.fingerprint,
    }
    events = catalog.run(model, chat, request.state.trace)
    if streams:
        chunks = Chunks(head, include_usage=body.include_usage, logprobs=bool(body.logprobs))
        return await delivery.sse(request, events, chunks.render, errors.body, b"[DONE]")
    answers, usage = await delivery.whole(request, gather(events))
    return Response(
        orjson.dumps({**head, **render(answers, usage, logprobs=bool(body.logprobs))}), media_type="application/json"
    )


def _writing_down(catalog: Catalog, request: Request) -> WriteDown | None:
    """What writes down a sound for a model that only reads; None where no such model is served."""
    speech = catalog.offering(Transcribe)
    if speech is None:
        return None

    async def write_down(samples: bytes) -> str:
        asked = Transcribe(model=speech.name, audio=samples)
        return await transcribe.gather(catalog.run(speech, asked, request.state.trace))

    return write_down


def parse(body: CreateChatCompletionRequest, turns: tuple[Turn, ...]) -> Chat:
    """Return the operation that `body` asks for. Raises `InvalidRequest` and `UnsupportedOption`."""
    limit = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    if body.top_logprobs and not body.logprobs:
        raise InvalidRequest("'top_logprobs' is only allowed when 'logprobs' is true.", param="top_logprobs")
    definitions, choice = tools.parse(body.tools or [], body.tool_choice)
    structure = body.response_format.structure() if body.response_format else None
    sampling = body.sampling(limit, structure, logprobs=(body.top_logprobs or 0) if body.logprobs else None)
    if sampling.structured_outputs and choice != "none":
        raise UnsupportedOption(
            "An answer cannot have a structure and call tools as well: leave one of them out, or set 'tool_choice' to "
            "'none'.",
            param="response_format" if structure else "structured_outputs",
        )
    if choice not in ("none", "auto"):
        body.refuse_stops("calls that are enforced")
    return Chat(
        model=body.model,
        messages=turns,
        sampling=sampling,
        tools=definitions,
        tool_choice=choice,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        template_arguments=body.chat_template_kwargs or {},
        continue_final=_continues(body),
    )


def _continues(body: CreateChatCompletionRequest) -> bool:
    """Whether the last message is to be continued: vLLM's pair of fields says so twice."""
    if body.add_generation_prompt is False and not body.continue_final_message:
        raise UnsupportedOption(
            "'add_generation_prompt' can be false only where 'continue_final_message' is true.",
            param="add_generation_prompt",
        )
    if not body.continue_final_message:
        return False
    if body.add_generation_prompt:
        raise InvalidRequest(
            "'continue_final_message' and 'add_generation_prompt' cannot both be true.", param="continue_final_message"
        )
    if body.messages[-1].role != "assistant":
        raise InvalidRequest(
            "'continue_final_message' needs a last message with the role 'assistant'.", param="continue_final_message"
        )
    return True
