"""As many open streams at once as one caller may have: every one must be answered."""

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, field

import aiohttp

from benchmarks.soak import held, reading
from benchmarks.soak.asking import Client
from benchmarks.soak.kinds import CHAT, EMBEDDING
from benchmarks.soak.service import CROWD, KEYS, Service

LONG, SHORT, TALKERS = 64, 4, 32
"""Tokens of the first so many answers, which keep the rows while the others come, and of all others."""


@dataclass(slots=True)
class Crowd:
    """What became of it. Memory of the gateway in MB."""

    what: str
    answered: int = 0
    seconds: float = 0.0
    open_at_once: int = 0
    """The most that the gateway's own metric showed."""
    before: float = 0.0
    most: float = 0.0
    faults: list[str] = field(default_factory=list)


async def ask_all(service: Service, what: str) -> Crowd:
    """Ask for `what`, chats or embeddings, `CROWD` times at once."""
    began = time.perf_counter()
    crowd = Crowd(what, before=held.look(service, began).gateway)
    timeout = aiohttp.ClientTimeout(total=600)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session,
        aiohttp.ClientSession() as aside,
    ):
        client = Client(session, service.gateway.url)
        watching = asyncio.create_task(_watch(aside, service, crowd))
        await asyncio.gather(*(_one(client, crowd, number) for number in range(CROWD)))
        crowd.seconds = time.perf_counter() - began
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    return crowd


async def _one(client: Client, crowd: Crowd, number: int) -> None:
    if crowd.what == "chats":
        body = {
            "model": CHAT,
            "messages": [{"role": "user", "content": f"Say something about the number {number % 8}."}],
            "max_tokens": LONG if number < TALKERS else SHORT,
            "temperature": 0,
            "stream": True,
        }
        path = "/v1/chat/completions"
    else:
        body, path = {"model": EMBEDDING, "input": f"The number {number % 64} is a number."}, "/v1/embeddings"
    try:
        answer = await client.ask(path, json.dumps(body).encode(), KEYS[0])
        if answer.status != 200:
            crowd.faults.append(f"{answer.status} {answer.data[:200]!r}")
            return
        (reading.chat if crowd.what == "chats" else reading.embeddings)(answer.data)
        crowd.answered += 1
    except (aiohttp.ClientError, OSError, TimeoutError, reading.Unreadable) as error:
        crowd.faults.append(f"{type(error).__name__}: {error}")


async def _watch(session: aiohttp.ClientSession, service: Service, crowd: Crowd) -> None:
    while True:
        crowd.most = max(crowd.most, held.look(service, 0).gateway)
        shown = await held.busy(session, service)
        crowd.open_at_once = max(crowd.open_at_once, int(shown.get("tritonic_in_flight", 0)))
        await asyncio.sleep(0.1)


def sentences(crowd: Crowd) -> list[str]:
    """The faults, each once, with how often it happened."""
    return [f"{crowd.what} at once: {number} x {text}" for text, number in Counter(crowd.faults).most_common(5)]
