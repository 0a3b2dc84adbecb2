"""A client of the gateway's chats and completions, whole and streamed."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.wire.gateway_server import RunningGateway
from tritonic import default_models

NAME = default_models.chat_model_name()

Body = dict[str, Any]


def chat(text: str, **more: Any) -> Body:
    """Return the body of a greedy chat completion."""
    return {"model": NAME, "messages": [{"role": "user", "content": text}], "temperature": 0, **more}


def prompt(text: str, **more: Any) -> Body:
    """Return the body of a greedy completion."""
    return {"model": NAME, "prompt": text, "temperature": 0, **more}


def path(body: Body) -> str:
    return "/v1/chat/completions" if "messages" in body else "/v1/completions"


def streamed(body: Body) -> Body:
    return {**body, "stream": True, "stream_options": {"include_usage": True}}


@dataclass(slots=True)
class TextResponse:
    """The text and the finish reason of each of the n choices, and the usage."""

    texts: list[str]
    finish_reasons: list[str | None]
    usage: dict[str, int] = field(default_factory=dict)

    @property
    def text(self) -> str:
        (text,) = self.texts
        return text

    @property
    def finish_reason(self) -> str | None:
        (finish_reason,) = self.finish_reasons
        return finish_reason


def text_of(choice: dict[str, Any]) -> str:
    """Return the text of a choice of a response or a chunk."""
    return choice.get("text") or choice.get("message", choice.get("delta", {})).get("content") or ""


@asynccontextmanager
async def events(gateway: RunningGateway, body: Body) -> AsyncIterator[AsyncIterator[Any]]:
    """Yield the data of the events of a stream: JSON, or the string `[DONE]`. Leaving the block early disconnects."""
    async with gateway.http.stream("POST", path(body), json=body) as response:
        assert response.status_code == 200, (await response.aread()).decode()

        async def read() -> AsyncIterator[Any]:
            async for line in response.aiter_lines():
                if line:
                    data = line.removeprefix("data: ")
                    yield data if data == "[DONE]" else json.loads(data)

        yield read()


@dataclass(frozen=True, slots=True)
class TextClient:
    """Sends requests: `await complete(body)` returns the response, whole or streamed."""

    gateway: RunningGateway

    async def __call__(self, body: Body) -> TextResponse:
        if not body.get("stream"):
            response = await self.gateway.http.post(path(body), json=body)
            assert response.status_code == 200, response.text
            document = response.json()
            choices = document["choices"]
            return TextResponse(
                [text_of(choice) for choice in choices],
                [c["finish_reason"] for c in choices],
                document.get("usage") or {},
            )
        n = body.get("n") or 1
        completion = TextResponse([""] * n, [None] * n)
        last: Any = None
        async with events(self.gateway, body) as stream:
            async for last in stream:
                if last == "[DONE]":
                    break
                assert "error" not in last, last
                for choice in last["choices"]:
                    completion.texts[choice["index"]] += text_of(choice)
                    completion.finish_reasons[choice["index"]] = (
                        choice["finish_reason"] or completion.finish_reasons[choice["index"]]
                    )
                completion.usage = last.get("usage") or completion.usage
        assert last == "[DONE]", last
        return completion
