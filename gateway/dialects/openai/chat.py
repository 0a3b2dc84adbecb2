"""POST /v1/chat/completions: https://platform.openai.com/docs/api-reference/chat

Seeds: the standard document's text model, the concise reference's chat, the relay's chat.
"""

import time
import uuid
from collections.abc import AsyncGenerator

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from gateway.dialects.openai.response_models import (
    SUCCESS,
    CreateChatCompletionResponse,
    CreateChatCompletionStreamResponse,
)
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
from gateway.http import delivery
from gateway.http.openapi_responses import STORED_OUTPUT_FAILURES
from gateway.http.routes import route_class
from gateway.models.catalog import Catalog
from gateway.operations.chat import ChatEvent, gather
from gateway.operations.speak import Speak

router = APIRouter(route_class=route_class(OPENAI_ERRORS, max_json_values=MAX_JSON_VALUES))

_EXAMPLE_HEAD = {
    "created": 1763683200,
    "model": "smollm2-135m-instruct",
    "system_fingerprint": "fp_70f0d4a9c3",
}
_RESPONSES = OPENAI_DOCS.responses(
    CreateChatCompletionResponse,
    STORED_OUTPUT_FAILURES,
    description="The answer; with `stream`, events that add to it.",
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
        **SUCCESS,
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
    reject_unsupported(body)
    streams = body.wants_stream
    model = catalog.get(body.model)
    head = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": body.model,
        "system_fingerprint": model.fingerprint,
    }
    speech = audio_chat.parse_speech(
        body,
        catalog.models,
        lambda name: catalog.get(name, Speak),
        writes_text=not media_chat.is_media_chat(model),
    )
    if speech is not None:
        operation = await parse_request(body, model, request)
        spoken = audio_chat.run(catalog, model, operation, speech, request)
        return await audio_chat_responses.respond(body, request, spoken, speech, head, nulls=True, more=SUCCESS)
    events: AsyncGenerator[ChatEvent]
    if media_chat.is_media_chat(model):
        events = await media_chat.open_answer(body, model, request, progress=streams)
    else:
        chat = await parse_request(body, model, request)
        events = catalog.run(model, chat, request.state.trace)
    if streams:
        chunks = ChatChunkRenderer(
            head,
            include_usage=body.include_usage,
            logprobs=bool(body.logprobs),
            nulls=True,
            legacy=body.uses_legacy_functions,
        )
        return await delivery.sse(request, events, chunks.render, OPENAI_ERRORS.render_event, b"[DONE]")
    answers, usage = await delivery.whole(request, gather(events))
    fields = render(answers, usage, logprobs=bool(body.logprobs), nulls=True, legacy=body.uses_legacy_functions)
    return Response(orjson.dumps({**head, **fields, **SUCCESS}), media_type="application/json")
