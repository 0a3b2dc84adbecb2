"""The mixed load: what is asked next, what becomes of it, and what is wrong with that."""

import asyncio
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp

from benchmarks.soak.client import Response, SoakClient, send
from benchmarks.soak.deployment import KEYS, RATE_LIMITED_KEY
from benchmarks.soak.invalid_requests import InvalidRequestCase
from benchmarks.soak.responses import InvalidResponse
from benchmarks.soak.workloads import Workload

STREAMS = 24
"""Requests that are open at once."""
BEHAVIOURS = {
    "served": 60,
    "read slowly": 4,
    "drawn by lot": 6,
    "hung up": 15,
    "half a request": 3,
    "wrong": 8,
    "hasty": 4,
}
"""How often each thing happens, in percent."""
SHARES = {"chat": 40, "structured": 12, "embeddings": 26, "picture": 8, "edit": 4, "task": 4}
"""What is asked for, by the first word of a kind's name."""
SLOW_READ_SECONDS = 0.05
"""Seconds that a slow reader rests after each piece."""


@dataclass(slots=True)
class RequestCounts:
    """What became of the requests, by kind."""

    answered: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    disconnected: Counter[str] = field(default_factory=Counter)
    num_faults: Counter[str] = field(default_factory=Counter)
    """Faults."""
    faults: list[str] = field(default_factory=list)
    """Their sentences."""
    seconds: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """Of each answer when it was asked for, since the load began, and how long it took."""
    slowness: list[tuple[float, float]] = field(default_factory=list)
    """The same for all kinds together, as multiples of what each took alone."""

    def fault(self, name: str, sentence: str) -> None:
        """Note one."""
        self.num_faults[name] += 1
        self.faults.append(f"{name}: {sentence}"[:600])


@dataclass(slots=True)
class MixedLoad:
    """Everything that may be asked. `alone` are the answers of the kinds, `usual` the seconds that they took."""

    workloads: Sequence[Workload]
    invalid_requests: Sequence[InvalidRequestCase]
    rng: random.Random
    baselines: list[Any] = field(default_factory=list)
    baseline_seconds: list[float] = field(default_factory=list)
    _groups: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._groups = {word: [] for word in SHARES}
        for number, kind in enumerate(self.workloads):
            word = kind.name.split()[0].rstrip(",")
            self._groups[word.removesuffix("s") if word == "pictures" else word].append(number)

    async def record_baselines(self, client: SoakClient) -> None:
        """Ask for each kind alone, and keep its answer. Raises `Unreadable` where one is none."""
        for number, kind in enumerate(self.workloads):
            answer = await send(client, kind, KEYS[0])
            if answer.status != 200:
                raise InvalidResponse(f"{kind.name}, alone: {answer.status} {answer.data[:300]!r}")
            read = kind.read(answer.data)
            if said := kind.check(read):
                raise InvalidResponse(f"{kind.name}, alone: {said}")
            if kind.same_answer_as >= 0 and (said := read.difference(self.baselines[kind.same_answer_as])):
                raise InvalidResponse(f"kind {number}, {kind.name}, is another than its twin: {said}")
            self.baselines.append(read if kind.same_answer_as < 0 else self.baselines[kind.same_answer_as])
            self.baseline_seconds.append(answer.seconds)

    async def warm_up(self, url: str) -> RequestCounts:
        """Do each thing once: serve each kind beside others, hang up on it, and refuse each wrong request."""
        tally, timeout = RequestCounts(), aiohttp.ClientTimeout(total=300)
        turns = [
            (fate, number) for number in range(len(self.workloads)) for fate in ("served", "hung up", "half a request")
        ]
        turns += [("wrong", number) for number in range(len(self.invalid_requests))]
        self.rng.shuffle(turns)
        left = iter(turns)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
            client = SoakClient(session, url)

            async def one_after_another() -> None:
                for fate, number in left:
                    await self._run_one(client, tally, 0.0, fate, number)

            await asyncio.gather(*(one_after_another() for _ in range(STREAMS)))
        return tally

    async def run(self, url: str, seconds: float) -> RequestCounts:
        """Keep `STREAMS` requests open for so long."""
        tally, began = RequestCounts(), time.perf_counter()
        timeout = aiohttp.ClientTimeout(total=300)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
            client = SoakClient(session, url)

            async def one_after_another() -> None:
                while (now := time.perf_counter() - began) < seconds:
                    (fate,) = self.rng.choices(list(BEHAVIOURS), list(BEHAVIOURS.values()))
                    number = self.rng.randrange(len(self.invalid_requests)) if fate == "wrong" else self.pick(fate)
                    await self._run_one(client, tally, now, fate, number)

            await asyncio.gather(*(one_after_another() for _ in range(STREAMS)))
        return tally

    async def _run_one(self, client: SoakClient, tally: RequestCounts, now: float, fate: str, number: int) -> None:
        """`number` is that of the kind, or of the wrong request."""
        key = self.rng.choice(KEYS)
        name = self.workloads[number].name if fate == "served" else fate
        try:
            match fate:
                case "half a request":
                    await client.send_partial(self.workloads[number], key, self.rng)
                    tally.disconnected[name] += 1
                case "wrong":
                    await self._invalid(client, tally, self.invalid_requests[number], key)
                case "hasty":
                    await self._rate_limited(client, tally, number)
                case "hung up":
                    await self._disconnected(client, tally, number, key)
                case "drawn by lot":
                    await self._sampled(client, tally, number, key)
                case _:
                    pause = {"pause": SLOW_READ_SECONDS} if fate == "read slowly" else {}
                    answer = await send(client, self.workloads[number], key, **pause)
                    if self._compare(tally, name, number, answer):
                        tally.seconds[name].append((now, answer.seconds))
                        if not pause:
                            tally.slowness.append((now, answer.seconds / self.baseline_seconds[number]))
        except (aiohttp.ClientError, OSError, TimeoutError, InvalidResponse) as error:
            tally.fault(name, f"kind {number}: {type(error).__name__}: {error}")

    def pick(self, fate: str) -> int:
        """The number of a kind that suits what is to become of it."""
        if fate in ("drawn by lot", "read slowly"):
            return self.rng.choice([n for n in self._groups["chat"] if "streamed" in self.workloads[n].name])
        if fate == "hasty":
            return self.rng.choice(self._groups["embeddings"])
        (group,) = self.rng.choices(list(SHARES), list(SHARES.values()))
        return self.rng.choice(self._groups[group])

    def _compare(self, tally: RequestCounts, name: str, number: int, answer: Response) -> bool:
        """Hold an answer to the one that the same request had alone."""
        kind = self.workloads[number]
        if answer.status != 200:
            tally.fault(name, f"kind {number}: {answer.status} {answer.data[:300]!r}")
            return False
        read = kind.read(answer.data)
        if said := read.difference(self.baselines[number]) or kind.check(read):
            tally.fault(name, f"kind {number}: {said}")
            return False
        tally.answered[name] += 1
        return True

    async def _invalid(self, client: SoakClient, tally: RequestCounts, wrong: InvalidRequestCase, key: str) -> None:
        answer = await client.request(
            wrong.path, wrong.body, wrong.key or key, content_type=wrong.content_type, method=wrong.method
        )
        tally.refused["wrong"] += 1
        if answer.status not in wrong.statuses or answer.refusal_error():
            said = answer.refusal_error() or f"{answer.status} {answer.data[:200]!r}"
            tally.fault("wrong", f"{wrong.title} at {wrong.path}: {said}")

    async def _rate_limited(self, client: SoakClient, tally: RequestCounts, number: int) -> None:
        answer = await send(client, self.workloads[number], RATE_LIMITED_KEY)
        if answer.status != 429:
            self._compare(tally, "hasty", number, answer)
            return
        tally.refused["hasty"] += 1
        if said := answer.refusal_error():
            tally.fault("hasty", said)

    async def _disconnected(self, client: SoakClient, tally: RequestCounts, number: int, key: str) -> None:
        """At a random moment, mostly before the answer is done."""
        kind = self.workloads[number]
        patience = self.rng.random() * 3 * self.baseline_seconds[number]
        if kind.is_task:
            answer = await client.run_task(kind, key, patience)
        else:
            answer = await client.request(kind.path, kind.body, key, content_type=kind.content_type, patience=patience)
        if not answer.disconnected:
            self._compare(tally, "hung up", number, answer)
            return
        tally.disconnected["hung up"] += 1
        if answer.status not in (0, 200):
            tally.fault("hung up", f"kind {number}: {answer.status} {answer.data[:200]!r}")
        elif kind.read_partial and (said := kind.read_partial(answer.data).difference(self.baselines[number])):
            tally.fault("hung up", f"kind {number}: {said}")

    async def _sampled(self, client: SoakClient, tally: RequestCounts, number: int, key: str) -> None:
        """Nobody knows what it says, but it must be an answer."""
        body = json.loads(self.workloads[number].body)
        body |= {"temperature": 1, "seed": self.rng.randrange(2**31)}
        kind = replace(self.workloads[number], body=json.dumps(body).encode())
        answer = await send(client, kind, key)
        if answer.status != 200:
            tally.fault("drawn by lot", f"{answer.status} {answer.data[:200]!r}")
        elif said := kind.check(kind.read(answer.data)):
            tally.fault("drawn by lot", said)
        else:
            tally.answered["drawn by lot"] += 1
