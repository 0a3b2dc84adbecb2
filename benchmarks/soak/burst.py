"""As many open streams at once as one caller may have: every one must be answered."""

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
"""Tokens of the first so many answers, which keep the rows while the others come, and of all others."""


@dataclass(slots=True)
class Burst:
    """What became of it. Memory of the gateway in MB."""

    what: str
    answered: int = 0
    seconds: float = 0.0
    open_at_once: int = 0
    """The most that the gateway's own metric showed."""
    before: float = 0.0
    most: float = 0.0
    faults: list[str] = field(default_factory=list)


async def run_burst(service: SoakDeployment, what: str) -> Burst:
    """Ask for `what`, chats or embeddings, `CROWD` times at once."""
    began = time.perf_counter()
    crowd = Burst(what, before=resources.sample(service, began).gateway)
    timeout = aiohttp.ClientTimeout(total=600)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session,
        aiohttp.ClientSession() as aside,
    ):
        client = SoakClient(session, service.gateway.url)
        watching = asyncio.create_task(_watch(aside, service, crowd))
        await asyncio.gather(*(_one(client, crowd, number) for number in range(BURST)))
        crowd.seconds = time.perf_counter() - began
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    return crowd


async def _one(client: SoakClient, crowd: Burst, number: int) -> None:
    if crowd.what == "chats":
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
            crowd.faults.append(f"{answer.status} {answer.data[:200]!r}")
            return
        (responses.parse_chat if crowd.what == "chats" else responses.parse_embeddings)(answer.data)
        crowd.answered += 1
    except (aiohttp.ClientError, OSError, TimeoutError, responses.InvalidResponse) as error:
        crowd.faults.append(f"{type(error).__name__}: {error}")


async def _watch(session: aiohttp.ClientSession, service: SoakDeployment, crowd: Burst) -> None:
    while True:
        crowd.most = max(crowd.most, resources.sample(service, 0).gateway)
        shown = await resources.active_gauges(session, service)
        crowd.open_at_once = max(crowd.open_at_once, int(shown.get("tritonic_in_flight", 0)))
        await asyncio.sleep(0.1)


def describe_faults(crowd: Burst) -> list[str]:
    """The faults, each once, with how often it happened."""
    return [f"{crowd.what} at once: {number} x {text}" for text, number in Counter(crowd.faults).most_common(5)]
