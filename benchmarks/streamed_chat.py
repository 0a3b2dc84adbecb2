"""Chats over HTTP, and when their tokens arrived."""

import json
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp


@dataclass(slots=True)
class StreamedAnswer:
    """One streamed answer: when the request was sent, and when each chunk with text came."""

    sent_at: float
    text: str = ""
    finish_reason: str = ""
    tokens: int = 0
    arrivals: list[float] = field(default_factory=list)
    error: str = ""

    @property
    def first_token_seconds(self) -> float:
        """Seconds to the first text."""
        return self.arrivals[0] - self.sent_at


async def stream_chat(
    session: aiohttp.ClientSession, url: str, body: dict[str, Any], hang_up_after: int = 0
) -> StreamedAnswer:
    """Stream one chat; `hang_up_after` so many chunks, where it is not 0."""
    body = {**body, "stream": True, "stream_options": {"include_usage": True}}
    heard = StreamedAnswer(time.perf_counter())
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        if response.status != 200:
            heard.error = f"{response.status} {(await response.text())[:300]}"
            return heard
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            if "error" in chunk:
                heard.error = str(chunk.get("message") or chunk["error"])
            if usage := chunk.get("usage"):
                heard.tokens = usage["completion_tokens"]
            # Other servers leave out what is null, or tell the usage along with the last choice.
            for choice in chunk.get("choices") or ():
                heard.finish_reason = choice.get("finish_reason") or heard.finish_reason
                delta = choice.get("delta") or {}
                if text := delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning"):
                    heard.text += text
                    heard.arrivals.append(time.perf_counter())
                    if len(heard.arrivals) == hang_up_after:
                        response.close()
                        return heard
    return heard
