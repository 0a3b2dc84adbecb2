"""Streams over HTTP from the scripted model, whose tokens carry the time at which it sent them."""

import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks.http_client import CLIENT_ERRORS, HttpClient, ResponseChunk, build_request

_STAMP = re.compile(rb" (\d{19})")


@dataclass(slots=True)
class StreamTimings:
    """Timings of many requests, in seconds."""

    seconds: float = 0.0
    first_token_seconds: list[float] = field(default_factory=list)
    """From a request to its first token."""
    token_delays: list[float] = field(default_factory=list)
    """From the model to the client, for each token."""
    errors: list[str] = field(default_factory=list)
    max_open: int = 0
    """The most requests that were open at once."""

    @property
    def tokens(self) -> int:
        """Tokens that arrived."""
        return len(self.token_delays)


def chat_body(model: str, tokens: int, *, stream: bool) -> dict[str, Any]:
    """Return the body of a chat whose answer has `tokens` tokens."""
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    return {"model": model, "messages": messages, "max_tokens": tokens, "stream": stream}


async def run_streams(
    url: str, body: dict[str, Any], concurrency: int, requests: int, spread: float = 0.0
) -> StreamTimings:
    """Keep `concurrency` requests open until `requests` have been answered.

    The first requests start evenly within `spread` seconds, as clients of a service do not all start at once.
    """
    timings = StreamTimings()
    arrived: list[tuple[int, list[ResponseChunk]]] = []
    left = iter(range(requests))
    opened = 0
    message = build_request(f"{url}/v1/chat/completions", json.dumps(body).encode())

    async def one(number: int) -> None:
        nonlocal opened
        await asyncio.sleep(spread * number / concurrency)
        client: HttpClient | None = None
        for _ in left:
            opened += 1
            timings.max_open = max(timings.max_open, opened)
            parts: list[ResponseChunk] = []
            began = time.monotonic_ns()
            try:
                if client is None or client.closed:
                    client = await HttpClient.connect(url)
                    began = time.monotonic_ns()
                status = await client.send(message, parts)
                if status != 200:
                    timings.errors.append(f"{status} {parts[:1]}")
            except CLIENT_ERRORS as error:
                timings.errors.append(f"{type(error).__name__}: {error}")
                if client:
                    client.close()
                client = None
            opened -= 1
            arrived.append((began, parts))
        if client:
            client.close()

    started = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(concurrency)))
    timings.seconds = time.perf_counter() - started
    collect(timings, arrived, body)
    return timings


def collect(timings: StreamTimings, arrived: list[tuple[int, list[ResponseChunk]]], body: dict[str, Any]) -> None:
    """Add the timings of requests to `timings`: each is its start and its received chunks, in nanoseconds.

    Incomplete responses are errors. This runs after the measurement, because parsing would take time from it.
    """
    for began, parts in arrived:
        rest, first, before = b"", True, timings.tokens
        for moment, part in parts:
            text = rest + part
            end = 0
            for match in _STAMP.finditer(text):
                end = match.end()
                timings.token_delays.append((moment - int(match[1])) / 1e9)
                if first:
                    timings.first_token_seconds.append((moment - began) / 1e9)
                    first = False
            rest = text[max(end, len(text) - 20) :]
        if (tokens := timings.tokens - before) != body["max_tokens"]:
            timings.errors.append(f"{tokens} tokens came")
        elif body["stream"] and not b"".join(part for _, part in parts[-2:]).endswith(b"data: [DONE]\n\n"):
            timings.errors.append("a stream was cut off")
