"""The mixed load: chooses each request and the behaviour of its client, sends it, and checks the response."""

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
    "completed": 60,
    "slow reader": 4,
    "sampled": 6,
    "disconnected": 15,
    "partial request": 3,
    "invalid": 8,
    "rate limited": 4,
}
"""The behaviours of clients, and the share of each in percent."""
SHARES = {"chat": 40, "structured": 12, "embeddings": 26, "image": 8, "edit": 4, "task": 4}
"""Weights of the workloads, by the first word of their names."""
SLOW_READ_SECONDS = 0.05
"""Seconds that a slow reader pauses after each piece of a response."""


@dataclass(slots=True)
class RequestCounts:
    """The outcomes of the requests, by the name of the workload, or by the behaviour of the client."""

    answered: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    disconnected: Counter[str] = field(default_factory=Counter)
    num_faults: Counter[str] = field(default_factory=Counter)
    """The number of faults."""
    faults: list[str] = field(default_factory=list)
    """A sentence for each fault."""
    seconds: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    """For each answer: the time of its request since the start of the load, and its latency. In seconds."""
    slowness: list[tuple[float, float]] = field(default_factory=list)
    """The same for all workloads, with the latency as a multiple of the workload's baseline."""

    def fault(self, name: str, sentence: str) -> None:
        """Record a fault."""
        self.num_faults[name] += 1
        self.faults.append(f"{name}: {sentence}"[:600])


@dataclass(slots=True)
class MixedLoad:
    """All requests of the load.

    `baselines` are the answers to each workload alone, and `baseline_seconds` their latencies.
    """

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
            self._groups["image" if word == "images" else word].append(number)

    async def record_baselines(self, client: SoakClient) -> None:
        """Send each workload alone and keep its answer. Raises `InvalidResponse` if an answer is case."""
        for number, workload in enumerate(self.workloads):
            answer = await send(client, workload, KEYS[0])
            if answer.status != 200:
                raise InvalidResponse(f"baseline of {workload.name}: {answer.status} {answer.data[:300]!r}")
            parsed = workload.read(answer.data)
            if problem := workload.check(parsed):
                raise InvalidResponse(f"baseline of {workload.name}: {problem}")
            if workload.same_answer_as >= 0 and (problem := parsed.difference(self.baselines[workload.same_answer_as])):
                other = workload.same_answer_as
                raise InvalidResponse(f"workload {number}, {workload.name}, differs from workload {other}: {problem}")
            self.baselines.append(parsed if workload.same_answer_as < 0 else self.baselines[workload.same_answer_as])
            self.baseline_seconds.append(answer.seconds)

    async def warm_up(self, url: str) -> RequestCounts:
        """Under load, complete each workload once, disconnect from it once, and send each invalid request once."""
        counts, timeout = RequestCounts(), aiohttp.ClientTimeout(total=300)
        requests = [
            (behaviour, number)
            for number in range(len(self.workloads))
            for behaviour in ("completed", "disconnected", "partial request")
        ]
        requests += [("invalid", number) for number in range(len(self.invalid_requests))]
        self.rng.shuffle(requests)
        remaining = iter(requests)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
            client = SoakClient(session, url)

            async def run_client() -> None:
                for behaviour, number in remaining:
                    await self._run_one(client, counts, 0.0, behaviour, number)

            await asyncio.gather(*(run_client() for _ in range(STREAMS)))
        return counts

    async def run(self, url: str, seconds: float) -> RequestCounts:
        """Keep `STREAMS` requests in flight for `seconds`."""
        counts, began = RequestCounts(), time.perf_counter()
        timeout = aiohttp.ClientTimeout(total=300)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
            client = SoakClient(session, url)

            async def run_client() -> None:
                while (now := time.perf_counter() - began) < seconds:
                    (behaviour,) = self.rng.choices(list(BEHAVIOURS), list(BEHAVIOURS.values()))
                    number = (
                        self.rng.randrange(len(self.invalid_requests))
                        if behaviour == "invalid"
                        else self.pick(behaviour)
                    )
                    await self._run_one(client, counts, now, behaviour, number)

            await asyncio.gather(*(run_client() for _ in range(STREAMS)))
        return counts

    async def _run_one(
        self, client: SoakClient, counts: RequestCounts, now: float, behaviour: str, number: int
    ) -> None:
        """Send one request, and count its outcome.

        `now` is the time since the start of the load in seconds, and `number` the index of the workload or of the
        invalid request.
        """
        key = self.rng.choice(KEYS)
        name = self.workloads[number].name if behaviour == "completed" else behaviour
        try:
            match behaviour:
                case "partial request":
                    await client.send_partial(self.workloads[number], key, self.rng)
                    counts.disconnected[name] += 1
                case "invalid":
                    await self._invalid(client, counts, self.invalid_requests[number], key)
                case "rate limited":
                    await self._rate_limited(client, counts, number)
                case "disconnected":
                    await self._disconnected(client, counts, number, key)
                case "sampled":
                    await self._sampled(client, counts, number, key)
                case _:
                    pause = {"pause": SLOW_READ_SECONDS} if behaviour == "slow reader" else {}
                    answer = await send(client, self.workloads[number], key, **pause)
                    if self._compare(counts, name, number, answer):
                        counts.seconds[name].append((now, answer.seconds))
                        if not pause:
                            counts.slowness.append((now, answer.seconds / self.baseline_seconds[number]))
        except (aiohttp.ClientError, OSError, TimeoutError, InvalidResponse) as error:
            counts.fault(name, f"workload {number}: {type(error).__name__}: {error}")

    def pick(self, behaviour: str) -> int:
        """Choose the index of a workload that suits `behaviour`."""
        if behaviour in ("sampled", "slow reader"):
            return self.rng.choice([n for n in self._groups["chat"] if "streamed" in self.workloads[n].name])
        if behaviour == "rate limited":
            return self.rng.choice(self._groups["embeddings"])
        (group,) = self.rng.choices(list(SHARES), list(SHARES.values()))
        return self.rng.choice(self._groups[group])

    def _compare(self, counts: RequestCounts, name: str, number: int, answer: Response) -> bool:
        """Compare an answer with the workload's baseline. Record a fault and return False if they differ."""
        workload = self.workloads[number]
        if answer.status != 200:
            counts.fault(name, f"workload {number}: {answer.status} {answer.data[:300]!r}")
            return False
        parsed = workload.read(answer.data)
        if problem := parsed.difference(self.baselines[number]) or workload.check(parsed):
            counts.fault(name, f"workload {number}: {problem}")
            return False
        counts.answered[name] += 1
        return True

    async def _invalid(self, client: SoakClient, counts: RequestCounts, case: InvalidRequestCase, key: str) -> None:
        answer = await client.request(
            case.path, case.body, case.key or key, content_type=case.content_type, method=case.method
        )
        counts.refused["invalid"] += 1
        if answer.status not in case.statuses or answer.refusal_error():
            problem = answer.refusal_error() or f"{answer.status} {answer.data[:200]!r}"
            counts.fault("invalid", f"{case.title} at {case.path}: {problem}")

    async def _rate_limited(self, client: SoakClient, counts: RequestCounts, number: int) -> None:
        answer = await send(client, self.workloads[number], RATE_LIMITED_KEY)
        if answer.status != 429:
            self._compare(counts, "rate limited", number, answer)
            return
        counts.refused["rate limited"] += 1
        if problem := answer.refusal_error():
            counts.fault("rate limited", problem)

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
            self._compare(counts, "disconnected", number, answer)
            return
        counts.disconnected["disconnected"] += 1
        if answer.status not in (0, 200):
            counts.fault("disconnected", f"workload {number}: {answer.status} {answer.data[:200]!r}")
        elif workload.read_partial and (
            problem := workload.read_partial(answer.data).difference(self.baselines[number])
        ):
            counts.fault("disconnected", f"workload {number}: {problem}")

    async def _sampled(self, client: SoakClient, counts: RequestCounts, number: int, key: str) -> None:
        """Send a sampled chat. Its text is not known, but it must be a valid answer."""
        body = json.loads(self.workloads[number].body)
        body |= {"temperature": 1, "seed": self.rng.randrange(2**31)}
        workload = replace(self.workloads[number], body=json.dumps(body).encode())
        answer = await send(client, workload, key)
        if answer.status != 200:
            counts.fault("sampled", f"{answer.status} {answer.data[:200]!r}")
        elif problem := workload.check(workload.read(answer.data)):
            counts.fault("sampled", problem)
        else:
            counts.answered["sampled"] += 1
