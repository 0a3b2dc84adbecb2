"""Kills Triton under load and restarts it: no request may hang, and each refusal must have a Retry-After."""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from benchmarks.soak.client import Response, SoakClient, send
from benchmarks.soak.deployment import KEYS, SoakDeployment
from benchmarks.soak.load import MixedLoad
from benchmarks.soak.responses import InvalidResponse

STREAMS = 12
BEFORE, AWAY, AFTER = 4.0, 3.0, 8.0
"""Seconds of load before the kill, from the kill to the restart, and after the first answer of the new server."""
MAX_RESPONSE_SECONDS = 15.0
"""Seconds within which each request must get a response, also while the server is away."""
RECOVERY_SECONDS = 120.0
"""Seconds within which requests must succeed again."""


@dataclass(slots=True)
class Outage:
    """The outage as clients observed it. Times are in seconds."""

    num_cut: int = 0
    """Responses in progress that ended with an error."""
    cut_longest: float = 0.0
    """Time from the kill to the last of these errors."""
    refused: int = 0
    refused_longest: float = 0.0
    """The longest wait for a refusal."""
    ready: float = 0.0
    """Time from the restart until Triton was ready."""
    found: float = 0.0
    """Time from then to the first answer through the gateway."""
    answered: int = 0
    """Answers afterwards that equal those of the new server to the same request alone."""
    faults: list[str] = field(default_factory=list)


async def kill_and_restart(service: SoakDeployment, load: MixedLoad) -> Outage:
    """Kill Triton under load, restart it, and check all responses."""
    outage, timeout = Outage(), aiohttp.ClientTimeout(total=RECOVERY_SECONDS)
    killed = asyncio.Event()
    back, over = asyncio.Event(), asyncio.Event()
    moments: dict[str, float] = {}
    later: list[tuple[int, Any]] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        client = SoakClient(session, service.gateway.url)

        async def one_after_another(chance: random.Random) -> None:
            while not over.is_set():
                number = chance.choice([n for n, kind in enumerate(load.workloads) if not kind.is_task])
                began, before = time.perf_counter(), not killed.is_set()
                try:
                    answer = await send(client, load.workloads[number], KEYS[0])
                    said = _wrong(load, number, answer, load.baselines[number] if before else None)
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    outage.faults.append(f"kind {number}: {type(error).__name__}: {error}")
                    continue
                ended = time.perf_counter()
                if not said:
                    if not before:
                        later.append((number, load.workloads[number].read(answer.data)))
                        moments.setdefault("answered", ended)
                        back.set()
                elif not killed.is_set() or back.is_set():
                    outage.faults.append(f"kind {number}, {'after' if back.is_set() else 'before'}: {said}")
                elif before:
                    outage.num_cut += 1
                    outage.cut_longest = max(outage.cut_longest, ended - moments["killed"])
                else:
                    outage.refused += 1
                    outage.refused_longest = max(outage.refused_longest, ended - began)
                    if answer.status != 503 or answer.refusal_error():
                        outage.faults.append(f"kind {number}, away: {answer.refusal_error() or said}")
                    await asyncio.sleep(0.2)

        crowd = [asyncio.create_task(one_after_another(random.Random(number))) for number in range(STREAMS)]
        await asyncio.sleep(BEFORE)
        moments["killed"] = time.perf_counter()
        killed.set()
        service.triton.kill()
        await asyncio.sleep(AWAY)
        await asyncio.to_thread(service.triton.stop)
        started = time.perf_counter()
        await asyncio.to_thread(lambda: service.triton.start().wait_ready())
        moments["ready"] = time.perf_counter()
        outage.ready = moments["ready"] - started
        try:
            await asyncio.wait_for(back.wait(), RECOVERY_SECONDS)
            outage.found = max(0.0, moments["answered"] - moments["ready"])
            await asyncio.sleep(AFTER)
        except TimeoutError:
            outage.faults.append(f"nothing was answered within {RECOVERY_SECONDS:.0f} s after the server was back")
        over.set()
        await asyncio.gather(*crowd)
        # A new server may prefill in other chunk sizes and round differently: compare with its own answers.
        for number, found in later:
            alone = load.workloads[number].read((await send(client, load.workloads[number], KEYS[0])).data)
            if said := found.difference(alone):
                outage.faults.append(f"kind {number}, after: {said}")
        outage.answered = len(later)
    if max(outage.refused_longest, outage.cut_longest) > MAX_RESPONSE_SECONDS:
        outage.faults.append("somebody was kept waiting while the server was away")
    return outage


def _wrong(load: MixedLoad, number: int, answer: Response, alone: Any) -> str:
    """Return what is wrong with an answer, also compared with the baseline `alone` if given. Empty: nothing."""
    if answer.status != 200:
        return f"{answer.status} {answer.data[:200]!r}"
    try:
        read = load.workloads[number].read(answer.data)
        return load.workloads[number].check(read) or ("" if alone is None else str(read.difference(alone)))
    except InvalidResponse as error:
        return str(error)


def describe_faults(outage: Outage) -> list[str]:
    """Return the five most frequent faults, each with its count."""
    return [f"outage: {number} x {text}" for text, number in Counter(outage.faults).most_common(5)]
