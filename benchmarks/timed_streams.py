"""Streams over HTTP whose tokens bear the time when the scripted model sent them."""

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
    """What came of many requests: seconds everywhere."""

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
    """A chat that is answered with so many tokens."""
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    return {"model": model, "messages": messages, "max_tokens": tokens, "stream": stream}


async def run_streams(
    url: str, asked: dict[str, Any], at_once: int, requests: int, spread: float = 0.0
) -> StreamTimings:
    """Keep `at_once` requests open until `requests` have been answered.

    The first of them begin within `spread` seconds, evenly: clients of a service do not all ask in one moment.
    """
    found = StreamTimings()
    arrived: list[tuple[int, list[ResponseChunk]]] = []
    left = iter(range(requests))
    opened = 0
    message = build_request(f"{url}/v1/chat/completions", json.dumps(asked).encode())

    async def one(number: int) -> None:
        nonlocal opened
        await asyncio.sleep(spread * number / at_once)
        client: HttpClient | None = None
        for _ in left:
            opened += 1
            found.max_open = max(found.max_open, opened)
            parts: list[ResponseChunk] = []
            began = time.monotonic_ns()
            try:
                if client is None or client.closed:
                    client = await HttpClient.connect(url)
                    began = time.monotonic_ns()
                status = await client.send(message, parts)
                if status != 200:
                    found.errors.append(f"{status} {parts[:1]}")
            except CLIENT_ERRORS as error:
                found.errors.append(f"{type(error).__name__}: {error}")
                if client:
                    client.close()
                client = None
            opened -= 1
            arrived.append((began, parts))
        if client:
            client.close()

    started = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(at_once)))
    found.seconds = time.perf_counter() - started
    collect(found, arrived, asked)
    return found


def collect(found: StreamTimings, arrived: list[tuple[int, list[ResponseChunk]]], asked: dict[str, Any]) -> None:
    """Count what came of requests, each with when it began and the bytes that came when.

    Answers that are not whole are faults. Only now: reading must not take time from what is measured.
    """
    for began, parts in arrived:
        rest, first, before = b"", True, found.tokens
        for moment, part in parts:
            text = rest + part
            end = 0
            for match in _STAMP.finditer(text):
                end = match.end()
                found.token_delays.append((moment - int(match[1])) / 1e9)
                if first:
                    found.first_token_seconds.append((moment - began) / 1e9)
                    first = False
            rest = text[max(end, len(text) - 20) :]
        if (tokens := found.tokens - before) != asked["max_tokens"]:
            found.errors.append(f"{tokens} tokens came")
        elif asked["stream"] and not b"".join(part for _, part in parts[-2:]).endswith(b"data: [DONE]\n\n"):
            found.errors.append("a stream was cut off")
