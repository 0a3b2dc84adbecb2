"""A burst of as many requests as one caller may have open: each must be answered."""

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field

import aiohttp

from benchmarks.models import CHAT_MODEL, EMBEDDING_MODEL
from benchmarks.soak import resources, responses
from benchmarks.soak.client import SoakClient
from benchmarks.soak.deployment import BURST, KEYS, SoakDeployment

LONG, SHORT, TALKERS = 64, 4, 32
"""Tokens of the first TALKERS answers, which keep the slots busy while the others arrive, and of all others."""


@dataclass(slots=True)
class Burst:
    """The result of a burst. Memory is the gateway's, in MB."""

    what: str
    answered: int = 0
    seconds: float = 0.0
    open_at_once: int = 0
    """The highest value of the gateway's own metric."""
    before: float = 0.0
    most: float = 0.0
    faults: list[str] = field(default_factory=list)


async def run_burst(service: SoakDeployment, what: str) -> Burst:
    """Send BURST requests at once. `what` is "chats" or "embeddings"."""
    began = time.perf_counter()
    burst = Burst(what, before=resources.sample(service, began).gateway)
    timeout = aiohttp.ClientTimeout(total=600)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session,
        aiohttp.ClientSession() as aside,
    ):
        client = SoakClient(session, service.gateway.url)
        watching = asyncio.create_task(_watch(aside, service, burst))
        await asyncio.gather(*(_one(client, burst, number) for number in range(BURST)))
        burst.seconds = time.perf_counter() - began
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    return burst


async def _one(client: SoakClient, burst: Burst, number: int) -> None:
    if burst.what == "chats":
        body = {
            "model": CHAT_MODEL,
            "messages": [{"role": "user", "content": f"Say something about the number {number % 8}."}],
            "max_tokens": LONG if number < TALKERS else SHORT,
            "temperature": 0,
            "stream": True,
        }
        path = "/v1/chat/completions"
    else:
        body, path = {"model": EMBEDDING_MODEL, "input": f"The number {number % 64} is a number."}, "/v1/embeddings"
    try:
        answer = await client.request(path, json.dumps(body).encode(), KEYS[0])
        if answer.status != 200:
            burst.faults.append(f"{answer.status} {answer.data[:200]!r}")
            return
        (responses.parse_chat if burst.what == "chats" else responses.parse_embeddings)(answer.data)
        burst.answered += 1
    except (aiohttp.ClientError, OSError, TimeoutError, responses.InvalidResponse) as error:
        burst.faults.append(f"{type(error).__name__}: {error}")


async def _watch(session: aiohttp.ClientSession, service: SoakDeployment, burst: Burst) -> None:
    while True:
        burst.most = max(burst.most, resources.sample(service, 0).gateway)
        shown = await resources.active_gauges(session, service)
        burst.open_at_once = max(burst.open_at_once, int(shown.get("tritonic_in_flight", 0)))
        await asyncio.sleep(0.1)


def describe_faults(burst: Burst) -> list[str]:
    """Return the five most frequent faults, each with its count."""
    return [f"{burst.what} at once: {number} x {text}" for text, number in Counter(burst.faults).most_common(5)]
