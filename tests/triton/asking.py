"""Helpers that send requests to the gateway and read the answers."""

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
class Said:
    """An answer: the text and the finish reason of each of the n choices, and the usage."""

    texts: list[str]
    reasons: list[str | None]
    usage: dict[str, int] = field(default_factory=dict)

    @property
    def text(self) -> str:
        (text,) = self.texts
        return text

    @property
    def reason(self) -> str | None:
        (reason,) = self.reasons
        return reason


def added(choice: dict[str, Any]) -> str:
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
class Ask:
    """Sends requests: `await ask(body)` returns the answer, whole or streamed."""

    gateway: RunningGateway

    async def __call__(self, body: Body) -> Said:
        if not body.get("stream"):
            response = await self.gateway.http.post(path(body), json=body)
            assert response.status_code == 200, response.text
            answer = response.json()
            choices = answer["choices"]
            return Said(
                [added(choice) for choice in choices], [c["finish_reason"] for c in choices], answer.get("usage") or {}
            )
        n = body.get("n") or 1
        said = Said([""] * n, [None] * n)
        last: Any = None
        async with events(self.gateway, body) as stream:
            async for last in stream:
                if last == "[DONE]":
                    break
                assert "error" not in last, last
                for choice in last["choices"]:
                    said.texts[choice["index"]] += added(choice)
                    said.reasons[choice["index"]] = choice["finish_reason"] or said.reasons[choice["index"]]
                said.usage = last.get("usage") or said.usage
        assert last == "[DONE]", last
        return said
