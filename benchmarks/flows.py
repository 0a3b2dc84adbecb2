"""Streams over HTTP whose tokens bear the time when the scripted model sent them."""

import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks.client import FAILURES, Client, Part, request

_STAMP = re.compile(rb" (\d{19})")


@dataclass(slots=True)
class Flow:
    """What came of many requests: seconds everywhere."""

    seconds: float = 0.0
    first: list[float] = field(default_factory=list)
    """From a request to its first token."""
    travel: list[float] = field(default_factory=list)
    """From the model to the client, for each token."""
    faults: list[str] = field(default_factory=list)
    open: int = 0
    """The most requests that were open at once."""

    @property
    def tokens(self) -> int:
        """Tokens that arrived."""
        return len(self.travel)


def body(model: str, tokens: int, *, stream: bool) -> dict[str, Any]:
    """A chat that is answered with so many tokens."""
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    return {"model": model, "messages": messages, "max_tokens": tokens, "stream": stream}


async def flow(url: str, asked: dict[str, Any], at_once: int, requests: int, spread: float = 0.0) -> Flow:
    """Keep `at_once` requests open until `requests` have been answered.

    The first of them begin within `spread` seconds, evenly: clients of a service do not all ask in one moment.
    """
    found = Flow()
    arrived: list[tuple[int, list[Part]]] = []
    left = iter(range(requests))
    opened = 0
    message = request(f"{url}/v1/chat/completions", json.dumps(asked).encode())

    async def one(number: int) -> None:
        nonlocal opened
        await asyncio.sleep(spread * number / at_once)
        client: Client | None = None
        for _ in left:
            opened += 1
            found.open = max(found.open, opened)
            parts: list[Part] = []
            began = time.monotonic_ns()
            try:
                if client is None or client.closed:
                    client = await Client.connect(url)
                    began = time.monotonic_ns()
                status = await client.ask(message, parts)
                if status != 200:
                    found.faults.append(f"{status} {parts[:1]}")
            except FAILURES as error:
                found.faults.append(f"{type(error).__name__}: {error}")
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
    read(found, arrived, asked)
    return found


def read(found: Flow, arrived: list[tuple[int, list[Part]]], asked: dict[str, Any]) -> None:
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
                found.travel.append((moment - int(match[1])) / 1e9)
                if first:
                    found.first.append((moment - began) / 1e9)
                    first = False
            rest = text[max(end, len(text) - 20) :]
        if (tokens := found.tokens - before) != asked["max_tokens"]:
            found.faults.append(f"{tokens} tokens came")
        elif asked["stream"] and not b"".join(part for _, part in parts[-2:]).endswith(b"data: [DONE]\n\n"):
            found.faults.append("a stream was cut off")
