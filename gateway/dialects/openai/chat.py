"""POST /v1/chat/completions: https://platform.openai.com/docs/api-reference/chat

Seeds: the standard document's text model, the concise reference's chat, the relay's chat.
"""

import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Request
from pydantic import Discriminator, Field, Tag
from starlette.responses import Response

from gateway import delivery
from gateway.catalog import Catalog
from gateway.dialects.openai import errors
from gateway.dialects.openai.text import SamplingFields, refuse, render_usage
from gateway.dialects.route import UNION_TAG, Wire, route_class
from gateway.errors import InvalidRequest, UnsupportedOption
from gateway.operations.chat import Chat, Role
from gateway.operations.chat import Message as Turn
from gateway.operations.text import Answer, Finish, TextEvent, Usage, gather

router = APIRouter(route_class=route_class(errors.render))


class ContentPart(Wire):
    """One part of a message; only `text` parts are carried so far."""

    type: Literal["text", "image_url", "input_audio", "file", "video_url", "refusal"]
    text: str | None = None


Content = Annotated[
    Annotated[str, Tag(UNION_TAG + "text")]
    | Annotated[list[ContentPart], Field(min_length=1, max_length=256, fail_fast=True), Tag(UNION_TAG + "parts")],
    Discriminator(lambda value: UNION_TAG + ("parts" if isinstance(value, list) else "text")),
]


class Message(Wire):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = None
    name: str | None = None
    tool_call_id: str | None = None
    tool_calls: list[Any] | None = None
    function_call: Any = None


class CreateChatCompletionRequest(SamplingFields):
    """The body of a chat request. Fields not named here are ignored; docs/dialects.md lists which are common."""

    # Without `fail_fast`, a body of a megabyte could hold half a million errors to be written down.
    messages: Annotated[list[Message], Field(min_length=1, max_length=4096, fail_fast=True)]
    max_completion_tokens: Annotated[int | None, Field(ge=1, lt=2**63)] = None
    # Known, and not carried yet: a value that asks for something is refused by name.
    add_generation_prompt: Any = None
    audio: Any = None
    chat_template: Any = None
    chat_template_kwargs: Any = None
    continue_final_message: Any = None
    echo: Any = None
    function_call: Any = None
    functions: Any = None
    logit_bias: Any = None
    logprobs: Any = None
    modalities: Any = None
    prediction: Any = None
    response_format: Any = None
    tool_choice: Any = None
    tools: Any = None
    top_logprobs: Any = None
    web_search_options: Any = None


NOT_CARRIED: Mapping[str, Callable[[Any], bool]] = {
    "tools": lambda value: value == [],
    "tool_choice": lambda value: value in ("none", "auto"),
    "functions": lambda value: value == [],
    "function_call": lambda value: value in ("none", "auto"),
    "response_format": lambda value: value == {"type": "text"},
    "logprobs": lambda value: value is False,
    "top_logprobs": lambda value: value == 0,
    "logit_bias": lambda value: value == {},
    "modalities": lambda value: value == ["text"],
    "audio": lambda _: False,
    "add_generation_prompt": lambda value: value is True,
    "chat_template": lambda _: False,
    "chat_template_kwargs": lambda value: value == {},
    "continue_final_message": lambda value: value is False,
    "echo": lambda value: value is False,
    "prediction": lambda _: False,
    "web_search_options": lambda _: False,
}

# Templates written before OpenAI renamed the role know only the old name.
ROLES: Mapping[str, Role] = {
    "developer": "system",
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}


@router.post("/v1/chat/completions", tags=["Chat"], summary="Answer a conversation")
async def create_chat_completion(body: CreateChatCompletionRequest, request: Request) -> Response:
    """Answer `messages`, whole or as server-sent events."""
    catalog: Catalog = request.app.state.catalog
    chat, streams = parse(body), body.streams
    model = catalog.get(body.model)
    head = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": body.model,
        "system_fingerprint": model.fingerprint,
    }
    events = catalog.run(model, chat, request.state.trace)
    if streams:
        chunks = _Chunks(head, body.include_usage)
        return await delivery.sse(request, events, chunks.render, errors.body, b"[DONE]")
    answers, usage = await delivery.whole(request, gather(events))
    return Response(orjson.dumps({**head, **render(answers, usage)}), media_type="application/json")


def parse(body: CreateChatCompletionRequest) -> Chat:
    """Return the operation that `body` asks for. Raises `InvalidRequest` and `UnsupportedOption`."""
    refuse(body, NOT_CARRIED)
    limit = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    return Chat(
        model=body.model,
        messages=tuple(_turn(message, f"messages[{i}]") for i, message in enumerate(body.messages)),
        sampling=body.sampling(limit),
    )


def _turn(message: Message, path: str) -> Turn:
    if message.tool_calls or message.function_call:
        raise UnsupportedOption(f"'{path}.tool_calls' is not supported yet.", param=f"{path}.tool_calls")
    if message.content is None and message.role != "assistant":
        raise InvalidRequest(f"'{path}.content' must be a string or a list of parts.", param=f"{path}.content")
    return Turn(
        role=ROLES[message.role],
        content=_text(message.content or "", f"{path}.content"),
        name=message.name,
        tool_call_id=message.tool_call_id,
    )


def _text(content: str | list[ContentPart], path: str) -> str:
    if isinstance(content, str):
        return content
    texts = []
    for i, part in enumerate(content):
        if part.type != "text":
            raise UnsupportedOption(
                f"'{path}[{i}]': parts of type '{part.type}' are not supported yet.", param=f"{path}[{i}]"
            )
        if part.text is None:
            raise InvalidRequest(f"The field '{path}[{i}].text' is required.", param=f"{path}[{i}].text")
        texts.append(part.text)
    # As vLLM does for templates that take strings.
    return "\n".join(texts)


def render(answers: list[Answer], usage: Usage) -> dict[str, Any]:
    """Return the fields of a `chat.completion` that are not known before."""
    return {
        "object": "chat.completion",
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": answer.text, "refusal": None},
                "logprobs": None,
                "finish_reason": answer.reason,
            }
            for index, answer in enumerate(answers)
        ],
        "usage": render_usage(usage),
        "code": 0,
        "message": "success",
    }


class _Chunks:
    """Renders events as `chat.completion.chunk`s."""

    def __init__(self, head: Mapping[str, Any], include_usage: bool) -> None:
        self._head = {**head, "object": "chat.completion.chunk"}
        self._include_usage = include_usage
        self._begun: set[int] = set()

    def render(self, event: TextEvent) -> Iterable[bytes]:
        """Yield the JSON of the chunks that `event` becomes: none, one, or two for the first of an answer."""
        if isinstance(event, Usage):
            if self._include_usage:
                yield orjson.dumps({**self._head, "choices": [], "usage": render_usage(event)})
            return
        if event.index not in self._begun:
            self._begun.add(event.index)
            yield self._chunk(event.index, {"role": "assistant", "content": "", "refusal": None})
        if isinstance(event, Finish):
            yield self._chunk(event.index, {}, event.reason)
        elif event.text:
            yield self._chunk(event.index, {"content": event.text})

    def _chunk(self, index: int, delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        usage = {"usage": None} if self._include_usage else {}
        return orjson.dumps({**self._head, "choices": [choice], **usage})
