"""Text requests of OpenAI's dialect, and checks of their responses."""

import json
import re
import uuid
from dataclasses import dataclass
from typing import Any

import httpx

from tests.fakes.triton import FakeTriton
from tests.fakes.triton_messages import InferCall
from tests.wire.gateway_server import RunningGateway

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TextRoute:
    """A route that generates text, for a chat or a prompt, whole or streamed."""

    path: str
    stream: bool

    def __str__(self) -> str:
        dialect = "" if self.path.startswith("/v1/") else "platform-"
        return f"{dialect}{'chat' if 'chat' in self.path else 'text'}-{'stream' if self.stream else 'whole'}"

    def body(self, model: str, text: str = "Hello!", **more: Any) -> Answer:
        content = {"messages": [{"role": "user", "content": text}]} if "chat" in self.path else {"prompt": text}
        return {"model": model, **content, **({"stream": True} if self.stream else {}), **more}

    @property
    def default_parameters(self) -> Answer:
        """The default sampling parameters for Triton: in OpenAI's reference, completions end after 16 tokens."""
        return {} if "chat" in self.path else {"max_tokens": 16}

    def text(self, response: httpx.Response) -> str:
        """Return the whole text of a successful response."""
        chunks = events(response)[:-1] if self.stream else [response.json()]
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        return "".join(
            choice.get("text") or choice.get("message", choice.get("delta", {})).get("content") or ""
            for choice in choices
        )


CHAT, CHAT_STREAM = TextRoute("/v1/chat/completions", False), TextRoute("/v1/chat/completions", True)
TEXT, TEXT_STREAM = TextRoute("/v1/completions", False), TextRoute("/v1/completions", True)
PLATFORM_CHAT = TextRoute("/tritonic/v1/chat/completions", False)
PLATFORM_CHAT_STREAM = TextRoute("/tritonic/v1/chat/completions", True)
TEXT_ROUTES = [CHAT, CHAT_STREAM, TEXT, TEXT_STREAM]
STREAM_ROUTES = [CHAT_STREAM, TEXT_STREAM]
ROUTES_OF_ALL_DIALECTS = [*TEXT_ROUTES, PLATFORM_CHAT, PLATFORM_CHAT_STREAM]


def events(response: httpx.Response) -> list[Any]:
    """Return the data of every server-sent event: parsed JSON, or the text `[DONE]`."""
    assert response.headers["content-type"].split(";")[0] == "text/event-stream"
    assert response.content.endswith(b"\n\n")
    blocks = response.content.decode().removesuffix("\n\n").split("\n\n")
    named = [re.fullmatch(r"(?:event: [a-z_.]+\n)?data: (.*)", block) for block in blocks]
    assert all(named), blocks
    data = [block[1] for block in named if block]
    return [datum if datum == "[DONE]" else json.loads(datum) for datum in data]


async def chat(gateway: RunningGateway, model: str = "hello", **more: Any) -> httpx.Response:
    return await gateway.http.post(CHAT.path, json=CHAT.body(model, **more))


async def captured_call(
    gateway: RunningGateway, triton: FakeTriton, route: TextRoute = CHAT, model: str = "hello", **more: Any
) -> InferCall:
    """Send a request that must succeed, and return the call that the model got."""
    request_id = uuid.uuid4().hex  # earlier tests may have left requests that arrive now
    headers = {"x-request-id": request_id}
    response = await gateway.http.post(route.path, json=route.body(model, **more), headers=headers)
    assert response.status_code == 200, response.text
    (call,) = [call for call in triton.calls if call.id.startswith(request_id)]
    return call


def check_error_body(body: Answer, kind: str, code: str | None = None, param: str | None = None) -> str:
    """Check the body of a failure in OpenAI's format, and return its message."""
    error = body["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert type(body["code"]) is int and body["code"] != 0
    assert body["message"] == error["message"]
    assert (error["type"], error["param"]) == (kind, param)
    assert code is None or error["code"] == code
    assert error["message"].strip() and "Traceback" not in error["message"]
    return str(error["message"])


def check_error(
    response: httpx.Response,
    status: int,
    kind: str = "invalid_request_error",
    code: str | None = None,
    param: str | None = None,
) -> str:
    """Check that a request failed in OpenAI's format, and return the message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    return check_error_body(response.json(), kind, code, param)
