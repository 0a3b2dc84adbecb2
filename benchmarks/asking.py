"""Chats over HTTP, and when their tokens arrived."""

import json
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp


@dataclass(slots=True)
class Heard:
    """One streamed answer: when the request was sent, and when each chunk with text came."""

    sent: float
    text: str = ""
    reason: str = ""
    tokens: int = 0
    arrivals: list[float] = field(default_factory=list)
    error: str = ""

    @property
    def first(self) -> float:
        """Seconds to the first text."""
        return self.arrivals[0] - self.sent


async def ask(session: aiohttp.ClientSession, url: str, body: dict[str, Any], hang_up_after: int = 0) -> Heard:
    """Stream one chat; `hang_up_after` so many chunks, where it is not 0."""
    body = {**body, "stream": True, "stream_options": {"include_usage": True}}
    heard = Heard(time.perf_counter())
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        if response.status != 200:
            heard.error = f"{response.status} {(await response.text())[:300]}"
            return heard
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            if "error" in chunk:
                heard.error = chunk["message"]
            elif chunk["choices"]:
                (choice,) = chunk["choices"]
                heard.reason = choice["finish_reason"] or heard.reason
                if choice["delta"].get("content"):
                    heard.text += choice["delta"]["content"]
                    heard.arrivals.append(time.perf_counter())
                    if len(heard.arrivals) == hang_up_after:
                        response.close()
                        return heard
            else:
                heard.tokens = chunk["usage"]["completion_tokens"]
    return heard
