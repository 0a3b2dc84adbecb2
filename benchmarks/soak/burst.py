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

LONG_TOKENS, SHORT_TOKENS, NUM_LONG_CHATS = 64, 4, 32
"""Tokens of the first NUM_LONG_CHATS answers, which occupy the slots while the others arrive, and of all others."""


@dataclass(slots=True)
class Burst:
    """The result of a burst."""

    operation: str
    """`chats` or `embeddings`."""
    answered: int = 0
    seconds: float = 0.0
    max_in_flight: int = 0
    """The highest value of the gateway's metric of requests in flight."""
    memory_before: float = 0.0
    """Memory of the gateway before the burst, in MiB."""
    peak_memory: float = 0.0
    """The highest sample of the gateway's memory, in MiB."""
    faults: list[str] = field(default_factory=list)


async def run_burst(service: SoakDeployment, operation: str) -> Burst:
    """Send BURST requests at once. `operation` is "chats" or "embeddings"."""
    began = time.perf_counter()
    burst = Burst(operation, memory_before=resources.sample(service, began).gateway)
    timeout = aiohttp.ClientTimeout(total=600)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session,
        aiohttp.ClientSession() as metrics_session,
    ):
        client = SoakClient(session, service.gateway.url)
        sampling = asyncio.create_task(_sample(metrics_session, service, burst))
        await asyncio.gather(*(_send_one(client, burst, number) for number in range(BURST)))
        burst.seconds = time.perf_counter() - began
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)
    return burst


async def _send_one(client: SoakClient, burst: Burst, number: int) -> None:
    if burst.operation == "chats":
        body = {
            "model": CHAT_MODEL,
            "messages": [{"role": "user", "content": f"Say something about the number {number % 8}."}],
            "max_tokens": LONG_TOKENS if number < NUM_LONG_CHATS else SHORT_TOKENS,
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
        (responses.parse_chat if burst.operation == "chats" else responses.parse_embeddings)(answer.data)
        burst.answered += 1
    except (aiohttp.ClientError, OSError, TimeoutError, responses.InvalidResponse) as error:
        burst.faults.append(f"{type(error).__name__}: {error}")


async def _sample(session: aiohttp.ClientSession, service: SoakDeployment, burst: Burst) -> None:
    """Record the highest memory and number of requests in flight, until cancelled."""
    while True:
        burst.peak_memory = max(burst.peak_memory, resources.sample(service, 0).gateway)
        gauges = await resources.active_gauges(session, service)
        burst.max_in_flight = max(burst.max_in_flight, int(gauges.get("tritonic_in_flight", 0)))
        await asyncio.sleep(0.1)


def describe_faults(burst: Burst) -> list[str]:
    """Return the five most frequent faults, each with its count."""
    return [f"{burst.operation} at once: {number} x {text}" for text, number in Counter(burst.faults).most_common(5)]
