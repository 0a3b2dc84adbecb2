"""Triton is killed while it answers, and comes back: nobody may hang, and everybody is told when to come again."""

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
"""Seconds of load before the kill, between it and the new start, and after the first answer of the new one."""
MAX_RESPONSE_SECONDS = 15.0
"""Seconds within which a request that comes while the server is away must be answered, however."""
RECOVERY_SECONDS = 120.0
"""Seconds within which all must be well again."""


@dataclass(slots=True)
class Outage:
    """What happened; seconds everywhere."""

    num_cut: int = 0
    """Answers that were under way and ended with an error."""
    cut_longest: float = 0.0
    """From the kill to the end of the last of them."""
    refused: int = 0
    refused_longest: float = 0.0
    """The longest that anybody waited to be refused."""
    ready: float = 0.0
    """From the new start until Triton was ready."""
    found: float = 0.0
    """From then to the first answer through the gateway."""
    answered: int = 0
    """Afterwards, each as the same request was alone, asked of the new server."""
    faults: list[str] = field(default_factory=list)


async def kill_and_restart(service: SoakDeployment, load: MixedLoad) -> Outage:
    """Kill Triton under load, start it again, and judge all that clients saw."""
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
        # A new start may cut prompts into other chunks, and so round otherwise: these are held to answers of its own.
        for number, found in later:
            alone = load.workloads[number].read((await send(client, load.workloads[number], KEYS[0])).data)
            if said := found.difference(alone):
                outage.faults.append(f"kind {number}, after: {said}")
        outage.answered = len(later)
    if max(outage.refused_longest, outage.cut_longest) > MAX_RESPONSE_SECONDS:
        outage.faults.append("somebody was kept waiting while the server was away")
    return outage


def _wrong(load: MixedLoad, number: int, answer: Response, alone: Any) -> str:
    """What keeps an answer from being one, and that which was given `alone` where there is any. Empty: nothing."""
    if answer.status != 200:
        return f"{answer.status} {answer.data[:200]!r}"
    try:
        read = load.workloads[number].read(answer.data)
        return load.workloads[number].check(read) or ("" if alone is None else str(read.difference(alone)))
    except InvalidResponse as error:
        return str(error)


def describe_faults(outage: Outage) -> list[str]:
    """The faults, each once, with how often it happened."""
    return [f"outage: {number} x {text}" for text, number in Counter(outage.faults).most_common(5)]
