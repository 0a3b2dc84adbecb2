"""Streams tokens over HTTP from the scripted model. Each token carries the time at which the model sent it."""

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
    """Time from a request to its first token."""
    token_delays: list[float] = field(default_factory=list)
    """Time from the model to the client, for each token."""
    errors: list[str] = field(default_factory=list)
    max_open: int = 0
    """The most requests that were open at once."""

    @property
    def tokens(self) -> int:
        """The number of tokens that arrived."""
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
    responses: list[tuple[int, list[ResponseChunk]]] = []
    remaining = iter(range(requests))
    num_open = 0
    message = build_request(f"{url}/v1/chat/completions", json.dumps(body).encode())

    async def run_client(number: int) -> None:
        nonlocal num_open
        await asyncio.sleep(spread * number / concurrency)
        client: HttpClient | None = None
        for _ in remaining:
            num_open += 1
            timings.max_open = max(timings.max_open, num_open)
            chunks: list[ResponseChunk] = []
            began = time.monotonic_ns()
            try:
                if client is None or client.closed:
                    client = await HttpClient.connect(url)
                    began = time.monotonic_ns()
                status = await client.send(message, chunks)
                if status != 200:
                    timings.errors.append(f"{status} {chunks[:1]}")
            except CLIENT_ERRORS as error:
                timings.errors.append(f"{type(error).__name__}: {error}")
                if client:
                    client.close()
                client = None
            num_open -= 1
            responses.append((began, chunks))
        if client:
            client.close()

    started = time.perf_counter()
    await asyncio.gather(*(run_client(number) for number in range(concurrency)))
    timings.seconds = time.perf_counter() - started
    collect(timings, responses, body)
    return timings


def collect(timings: StreamTimings, responses: list[tuple[int, list[ResponseChunk]]], body: dict[str, Any]) -> None:
    """Add the timings of responses to `timings`. A response is its start time in nanoseconds, and its chunks.

    Incomplete responses are errors. Call this after the measurement, because parsing takes CPU time.
    """
    for began, chunks in responses:
        rest, first, before = b"", True, timings.tokens
        for arrived_at, chunk in chunks:
            text = rest + chunk
            end = 0
            for match in _STAMP.finditer(text):
                end = match.end()
                timings.token_delays.append((arrived_at - int(match[1])) / 1e9)
                if first:
                    timings.first_token_seconds.append((arrived_at - began) / 1e9)
                    first = False
            rest = text[max(end, len(text) - 20) :]
        if (tokens := timings.tokens - before) != body["max_tokens"]:
            timings.errors.append(f"{tokens} tokens came")
        elif body["stream"] and not b"".join(chunk for _, chunk in chunks[-2:]).endswith(b"data: [DONE]\n\n"):
            timings.errors.append("a stream was cut off")
