"""Streams a chat over HTTP and records the arrival times of its tokens."""

import json
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp


@dataclass(slots=True)
class StreamedAnswer:
    """One streamed response. Times are in seconds of `time.perf_counter`."""

    sent_at: float
    text: str = ""
    finish_reason: str = ""
    tokens: int = 0
    """Completion tokens by the server's `usage`; 0 if it sends none."""
    arrivals: list[float] = field(default_factory=list)
    """Arrival time of each chunk with text."""
    error: str = ""
    """The error of the server; empty if there was none."""

    @property
    def first_token_seconds(self) -> float:
        """Time to first token, in seconds."""
        return self.arrivals[0] - self.sent_at


async def stream_chat(
    session: aiohttp.ClientSession, url: str, body: dict[str, Any], disconnect_after: int = 0
) -> StreamedAnswer:
    """Stream one chat. With `disconnect_after`, disconnect after so many chunks with text."""
    body = {**body, "stream": True, "stream_options": {"include_usage": True}}
    answer = StreamedAnswer(time.perf_counter())
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        if response.status != 200:
            answer.error = f"{response.status} {(await response.text())[:300]}"
            return answer
        async for line in response.content:
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            if "error" in chunk:
                answer.error = str(chunk.get("message") or chunk["error"])
            if usage := chunk.get("usage"):
                answer.tokens = usage["completion_tokens"]
            # Other servers omit null fields, or send the usage with the last choice.
            for choice in chunk.get("choices") or ():
                answer.finish_reason = choice.get("finish_reason") or answer.finish_reason
                delta = choice.get("delta") or {}
                if text := delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning"):
                    answer.text += text
                    answer.arrivals.append(time.perf_counter())
                    if len(answer.arrivals) == disconnect_after:
                        response.close()
                        return answer
    return answer
