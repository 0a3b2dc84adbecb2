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
BEFORE_SECONDS, OUTAGE_SECONDS, AFTER_SECONDS = 4.0, 3.0, 8.0
"""Seconds of load before the kill, from the kill to the restart, and after the first answer of the new server."""
MAX_RESPONSE_SECONDS = 15.0
"""Seconds within which each request must get a response, also during the outage."""
RECOVERY_SECONDS = 120.0
"""Seconds within which requests must succeed again."""


@dataclass(slots=True)
class Outage:
    """The outage as clients observed it. Times are in seconds."""

    num_cut: int = 0
    """Responses in progress that ended with an error."""
    cut_longest: float = 0.0
    """Time from the kill to the last of these errors."""
    num_refused: int = 0
    refused_longest: float = 0.0
    """The longest time until a refusal."""
    ready: float = 0.0
    """Time from the restart until Triton was ready."""
    first_answer: float = 0.0
    """Time from then to the first answer through the gateway."""
    num_answered: int = 0
    """Number of answers after the restart, each of which is compared with the new server's baseline."""
    faults: list[str] = field(default_factory=list)


async def kill_and_restart(service: SoakDeployment, load: MixedLoad) -> Outage:
    """Kill Triton under load, restart it, and check all responses."""
    outage, timeout = Outage(), aiohttp.ClientTimeout(total=RECOVERY_SECONDS)
    killed = asyncio.Event()
    recovered, finished = asyncio.Event(), asyncio.Event()
    times: dict[str, float] = {}
    later_answers: list[tuple[int, Any]] = []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        client = SoakClient(session, service.gateway.url)

        async def run_client(rng: random.Random) -> None:
            while not finished.is_set():
                number = rng.choice([n for n, workload in enumerate(load.workloads) if not workload.is_task])
                began, before = time.perf_counter(), not killed.is_set()
                try:
                    answer = await send(client, load.workloads[number], KEYS[0])
                    problem = _problem(load, number, answer, load.baselines[number] if before else None)
                except (aiohttp.ClientError, OSError, TimeoutError) as error:
                    outage.faults.append(f"workload {number}: {type(error).__name__}: {error}")
                    continue
                ended = time.perf_counter()
                if not problem:
                    if not before:
                        later_answers.append((number, load.workloads[number].read(answer.data)))
                        times.setdefault("answered", ended)
                        recovered.set()
                elif not killed.is_set() or recovered.is_set():
                    outage.faults.append(f"workload {number}, {'after' if recovered.is_set() else 'before'}: {problem}")
                elif before:
                    outage.num_cut += 1
                    outage.cut_longest = max(outage.cut_longest, ended - times["killed"])
                else:
                    outage.num_refused += 1
                    outage.refused_longest = max(outage.refused_longest, ended - began)
                    if answer.status != 503 or answer.refusal_error():
                        outage.faults.append(
                            f"workload {number}, during the outage: {answer.refusal_error() or problem}"
                        )
                    await asyncio.sleep(0.2)

        clients = [asyncio.create_task(run_client(random.Random(number))) for number in range(STREAMS)]
        await asyncio.sleep(BEFORE_SECONDS)
        times["killed"] = time.perf_counter()
        killed.set()
        service.triton.kill()
        await asyncio.sleep(OUTAGE_SECONDS)
        await asyncio.to_thread(service.triton.stop)
        started = time.perf_counter()
        await asyncio.to_thread(lambda: service.triton.start().wait_ready())
        times["ready"] = time.perf_counter()
        outage.ready = times["ready"] - started
        try:
            await asyncio.wait_for(recovered.wait(), RECOVERY_SECONDS)
            outage.first_answer = max(0.0, times["answered"] - times["ready"])
            await asyncio.sleep(AFTER_SECONDS)
        except TimeoutError:
            outage.faults.append(f"no request was answered within {RECOVERY_SECONDS:.0f} s after the restart")
        finished.set()
        await asyncio.gather(*clients)
        # A new server may use other prefill chunk sizes and round differently, so its answers have their own baselines.
        for number, answer in later_answers:
            baseline = load.workloads[number].read((await send(client, load.workloads[number], KEYS[0])).data)
            if problem := answer.difference(baseline):
                outage.faults.append(f"workload {number}, after: {problem}")
        outage.num_answered = len(later_answers)
    if max(outage.refused_longest, outage.cut_longest) > MAX_RESPONSE_SECONDS:
        outage.faults.append(f"a response took longer than {MAX_RESPONSE_SECONDS:.0f} s during the outage")
    return outage


def _problem(load: MixedLoad, number: int, answer: Response, baseline: Any) -> str:
    """Return the problem of an answer, "" if there is none. With `baseline`, a difference from it is a problem."""
    if answer.status != 200:
        return f"{answer.status} {answer.data[:200]!r}"
    try:
        parsed = load.workloads[number].read(answer.data)
        return load.workloads[number].check(parsed) or ("" if baseline is None else str(parsed.difference(baseline)))
    except InvalidResponse as error:
        return str(error)


def describe_faults(outage: Outage) -> list[str]:
    """Return the five most frequent faults, each with its count."""
    return [f"outage: {number} x {text}" for text, number in Counter(outage.faults).most_common(5)]
