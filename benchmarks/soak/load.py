"""The mixed load: chooses each request and the client's action, sends it, and checks the response."""

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
"""Requests in flight at a time."""
BEHAVIOURS = {
    "served": 60,
    "read slowly": 4,
    "drawn by lot": 6,
    "hung up": 15,
    "half a request": 3,
    "wrong": 8,
    "hasty": 4,
}
"""The behaviours of clients, and how often each is chosen, in percent."""
SHARES = {"chat": 40, "structured": 12, "embeddings": 26, "picture": 8, "edit": 4, "task": 4}
"""Weights of the workloads, by the first word of their names."""
SLOW_READ_SECONDS = 0.05
"""Seconds that a slow reader pauses after each piece of a response."""


@dataclass(slots=True)
class RequestCounts:
    """The outcomes of the requests, by workload or action."""

    answered: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    disconnected: Counter[str] = field(default_factory=Counter)
    num_faults: Counter[str] = field(default_factory=Counter)
    """How many faults there were."""
    faults: list[str] = field(default_factory=list)
    """A sentence for each fault."""
    seconds: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """For each answer: when it was requested, since the start of the load, and how long it took. In seconds."""
    slowness: list[tuple[float, float]] = field(default_factory=list)
    """The same for all workloads, with the duration as a multiple of the workload's baseline."""

    def fault(self, name: str, sentence: str) -> None:
        """Record a fault."""
        self.num_faults[name] += 1
        self.faults.append(f"{name}: {sentence}"[:600])


@dataclass(slots=True)
class MixedLoad:
    """All requests of the load. `baselines` are the answers to each workload alone, `baseline_seconds` their times."""

    workloads: Sequence[Workload]
    invalid_requests: Sequence[InvalidRequestCase]
    rng: random.Random
    baselines: list[Any] = field(default_factory=list)
    baseline_seconds: list[float] = field(default_factory=list)
    _groups: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._groups = {word: [] for word in SHARES}
        for number, workload in enumerate(self.workloads):
            word = workload.name.split()[0].rstrip(",")
            self._groups[word.removesuffix("s") if word == "pictures" else word].append(number)

    async def record_baselines(self, client: SoakClient) -> None:
        """Send each workload alone and keep its answer. Raises `InvalidResponse` if an answer is wrong."""
        for number, workload in enumerate(self.workloads):
            answer = await send(client, workload, KEYS[0])
            if answer.status != 200:
                raise InvalidResponse(f"{workload.name}, alone: {answer.status} {answer.data[:300]!r}")
            read = workload.read(answer.data)
            if problem := workload.check(read):
                raise InvalidResponse(f"{workload.name}, alone: {problem}")
            if workload.same_answer_as >= 0 and (problem := read.difference(self.baselines[workload.same_answer_as])):
                raise InvalidResponse(f"kind {number}, {workload.name}, differs from its twin: {problem}")
            self.baselines.append(read if workload.same_answer_as < 0 else self.baselines[workload.same_answer_as])
            self.baseline_seconds.append(answer.seconds)

    async def warm_up(self, url: str) -> RequestCounts:
        """Do each thing once under load: complete each workload, disconnect from it, and send each invalid request."""
        counts, timeout = RequestCounts(), aiohttp.ClientTimeout(total=300)
        turns = [
            (action, number)
            for number in range(len(self.workloads))
            for action in ("served", "hung up", "half a request")
        ]
        turns += [("wrong", number) for number in range(len(self.invalid_requests))]
        self.rng.shuffle(turns)
        left = iter(turns)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
            client = SoakClient(session, url)

            async def one_after_another() -> None:
                for action, number in left:
                    await self._run_one(client, counts, 0.0, action, number)

            await asyncio.gather(*(one_after_another() for _ in range(STREAMS)))
        return counts

    async def run(self, url: str, seconds: float) -> RequestCounts:
        """Keep `STREAMS` requests in flight for `seconds`."""
        counts, began = RequestCounts(), time.perf_counter()
        timeout = aiohttp.ClientTimeout(total=300)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
            client = SoakClient(session, url)

            async def one_after_another() -> None:
                while (now := time.perf_counter() - began) < seconds:
                    (action,) = self.rng.choices(list(BEHAVIOURS), list(BEHAVIOURS.values()))
                    number = self.rng.randrange(len(self.invalid_requests)) if action == "wrong" else self.pick(action)
                    await self._run_one(client, counts, now, action, number)

            await asyncio.gather(*(one_after_another() for _ in range(STREAMS)))
        return counts

    async def _run_one(self, client: SoakClient, counts: RequestCounts, now: float, action: str, number: int) -> None:
        """Send one request. `number` is the index of the workload, or of the invalid request."""
        key = self.rng.choice(KEYS)
        name = self.workloads[number].name if action == "served" else action
        try:
            match action:
                case "half a request":
                    await client.send_partial(self.workloads[number], key, self.rng)
                    counts.disconnected[name] += 1
                case "wrong":
                    await self._invalid(client, counts, self.invalid_requests[number], key)
                case "hasty":
                    await self._rate_limited(client, counts, number)
                case "hung up":
                    await self._disconnected(client, counts, number, key)
                case "drawn by lot":
                    await self._sampled(client, counts, number, key)
                case _:
                    pause = {"pause": SLOW_READ_SECONDS} if action == "read slowly" else {}
                    answer = await send(client, self.workloads[number], key, **pause)
                    if self._compare(counts, name, number, answer):
                        counts.seconds[name].append((now, answer.seconds))
                        if not pause:
                            counts.slowness.append((now, answer.seconds / self.baseline_seconds[number]))
        except (aiohttp.ClientError, OSError, TimeoutError, InvalidResponse) as error:
            counts.fault(name, f"kind {number}: {type(error).__name__}: {error}")

    def pick(self, action: str) -> int:
        """Choose the index of a workload that suits `action`."""
        if action in ("drawn by lot", "read slowly"):
            return self.rng.choice([n for n in self._groups["chat"] if "streamed" in self.workloads[n].name])
        if action == "hasty":
            return self.rng.choice(self._groups["embeddings"])
        (group,) = self.rng.choices(list(SHARES), list(SHARES.values()))
        return self.rng.choice(self._groups[group])

    def _compare(self, counts: RequestCounts, name: str, number: int, answer: Response) -> bool:
        """Compare an answer with the workload's baseline. Record a fault and return False if they differ."""
        workload = self.workloads[number]
        if answer.status != 200:
            counts.fault(name, f"kind {number}: {answer.status} {answer.data[:300]!r}")
            return False
        read = workload.read(answer.data)
        if problem := read.difference(self.baselines[number]) or workload.check(read):
            counts.fault(name, f"kind {number}: {problem}")
            return False
        counts.answered[name] += 1
        return True

    async def _invalid(self, client: SoakClient, counts: RequestCounts, wrong: InvalidRequestCase, key: str) -> None:
        answer = await client.request(
            wrong.path, wrong.body, wrong.key or key, content_type=wrong.content_type, method=wrong.method
        )
        counts.refused["wrong"] += 1
        if answer.status not in wrong.statuses or answer.refusal_error():
            problem = answer.refusal_error() or f"{answer.status} {answer.data[:200]!r}"
            counts.fault("wrong", f"{wrong.title} at {wrong.path}: {problem}")

    async def _rate_limited(self, client: SoakClient, counts: RequestCounts, number: int) -> None:
        answer = await send(client, self.workloads[number], RATE_LIMITED_KEY)
        if answer.status != 429:
            self._compare(counts, "hasty", number, answer)
            return
        counts.refused["hasty"] += 1
        if problem := answer.refusal_error():
            counts.fault("hasty", problem)

    async def _disconnected(self, client: SoakClient, counts: RequestCounts, number: int, key: str) -> None:
        """Disconnect at a random moment, mostly before the response is complete."""
        workload = self.workloads[number]
        patience = self.rng.random() * 3 * self.baseline_seconds[number]
        if workload.is_task:
            answer = await client.run_task(workload, key, patience)
        else:
            answer = await client.request(
                workload.path, workload.body, key, content_type=workload.content_type, patience=patience
            )
        if not answer.disconnected:
            self._compare(counts, "hung up", number, answer)
            return
        counts.disconnected["hung up"] += 1
        if answer.status not in (0, 200):
            counts.fault("hung up", f"kind {number}: {answer.status} {answer.data[:200]!r}")
        elif workload.read_partial and (
            problem := workload.read_partial(answer.data).difference(self.baselines[number])
        ):
            counts.fault("hung up", f"kind {number}: {problem}")

    async def _sampled(self, client: SoakClient, counts: RequestCounts, number: int, key: str) -> None:
        """Send a sampled chat. Its text is not known, but it must be a valid answer."""
        body = json.loads(self.workloads[number].body)
        body |= {"temperature": 1, "seed": self.rng.randrange(2**31)}
        workload = replace(self.workloads[number], body=json.dumps(body).encode())
        answer = await send(client, workload, key)
        if answer.status != 200:
            counts.fault("drawn by lot", f"{answer.status} {answer.data[:200]!r}")
        elif problem := workload.check(workload.read(answer.data)):
            counts.fault("drawn by lot", problem)
        else:
            counts.answered["drawn by lot"] += 1
