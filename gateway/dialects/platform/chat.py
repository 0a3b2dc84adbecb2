"""POST /{platform}/v1/chat/completions: OpenAI's chat requests, with answers as the platform document has them.

Seed: the all-platform document, 对话接口.
"""

import time
import uuid
from collections.abc import AsyncGenerator

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.dialects.openai.wire import audio_chat, audio_chat_responses, media_chat
from gateway.dialects.openai.wire.chat import (
    MAX_JSON_VALUES,
    CreateChatCompletionRequest,
    parse_request,
    reject_unsupported,
)
from gateway.dialects.openai.wire.chat_responses import ChatChunkRenderer, render
from gateway.dialects.openai.wire.error_models import OPENAI_DOCS
from gateway.dialects.openai.wire.errors import OPENAI_ERRORS
from gateway.dialects.platform import access
from gateway.dialects.platform.response_models import ChatAnswer, ChatChunk
from gateway.http import delivery
from gateway.http.openapi_responses import STORED_OUTPUT_FAILURES
from gateway.http.routes import route_class
from gateway.models.catalog import Catalog
from gateway.operations.chat import ChatEvent, gather
from gateway.operations.speak import Speak

router = APIRouter(
    route_class=route_class(OPENAI_ERRORS, max_json_values=MAX_JSON_VALUES, authorize=access.authorize),
    tags=["Platforms"],
)

_EXAMPLE_HEAD = {"created": 1763683200, "model": "smollm2-135m-instruct"}
_RESPONSES = OPENAI_DOCS.responses(
    ChatAnswer,
    STORED_OUTPUT_FAILURES,
    description="The answer; with `stream`, events that add to it.",
    example={
        "id": "foaicmpl-4f1c2a7d",
        "object": "chat.completion",
        **_EXAMPLE_HEAD,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "The capital of France is Paris."},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 36, "completion_tokens": 8, "total_tokens": 44},
    },
    event=ChatChunk,
    event_example={
        "id": "foaicmpl-4f1c2a7d",
        "object": "chat.completion.chunk",
        **_EXAMPLE_HEAD,
        "choices": [{"index": 0, "delta": {"content": "The capital"}, "finish_reason": None}],
    },
)


@router.post("/{platform}/v1/chat/completions", summary="Answer a conversation", responses=_RESPONSES)
async def create_chat_completion(platform: str, body: CreateChatCompletionRequest, request: Request) -> Response:
    """Answer `messages`, whole or as server-sent events. Images and files may be URLs, data URLs or base64."""
    catalog: Catalog = request.app.state.catalog
    reject_unsupported(body)
    streams = body.wants_stream
    model = access.find_model(request, body.model)
    head = {"id": f"foaicmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": body.model}
    speech = audio_chat.parse_speech(
        body,
        lambda: access.list_models(request),
        lambda name: access.find_model(request, name, Speak),
        writes_text=not media_chat.is_media_chat(model),
    )
    if speech is not None:
        operation = await parse_request(body, model, request, allow_base64=True)
        spoken = audio_chat.run(catalog, model, operation, speech, request)
        return await audio_chat_responses.respond(body, request, spoken, speech, head, nulls=False, more={})
    events: AsyncGenerator[ChatEvent]
    if media_chat.is_media_chat(model):
        events = await media_chat.open_answer(body, model, request, progress=streams, allow_base64=True)
    else:
        events = catalog.run(model, await parse_request(body, model, request, allow_base64=True), request.state.trace)
    if streams:
        chunks = ChatChunkRenderer(
            head,
            include_usage=body.include_usage,
            logprobs=bool(body.logprobs),
            nulls=False,
            legacy=body.uses_legacy_functions,
        )
        return await delivery.sse(request, events, chunks.render, OPENAI_ERRORS.render_event, b"[DONE]")
    answers, usage = await delivery.whole(request, gather(events))
    fields = render(answers, usage, logprobs=bool(body.logprobs), nulls=False, legacy=body.uses_legacy_functions)
    return Response(orjson.dumps({**head, **fields}), media_type="application/json")
