"""The soak test: minutes of mixed load on the real service, and a check of its resources afterwards.

Several callers send chats, embeddings, image generations, edits and tasks: streamed and whole, read slowly, with
disconnects at random moments, sampled, sent in part, invalid in every dialect, and above the rate limit. Each answer
must equal the answer that the same request got alone. Each refusal must have an error message. At the end no request
may be in progress, and memory, files, threads and processes may not have grown. Then comes a burst of as many requests
as one caller may have open. With `faults`, Triton is killed under load and restarted. With `attacked`, attackers are
among the callers, and no honest request may be lost.
"""

import asyncio
import random
import time
from pathlib import Path

import aiohttp

from benchmarks.soak import attack_report, attackers, burst, invalid_requests, outage, report, resources, workloads
from benchmarks.soak.client import SoakClient
from benchmarks.soak.deployment import SoakDeployment, deploy
from benchmarks.soak.load import MixedLoad, RequestCounts
from benchmarks.tables import Table
from benchmarks.throughput import single_token_words

MINUTES = 3.0
"""Minutes of load. The whole soak takes three or four minutes more."""
WARM = 60.0
"""Seconds of the same load before the measurement, after each request was sent once. One-time allocations (threads,
arenas, compiled grammars, pages of slots and of the prefix cache) are not growth."""


def run(
    repository: Path,
    model: str,
    minutes: float = MINUTES,
    *,
    faults: bool = False,
    attacked: bool = False,
    seed: int = 17,
) -> list[Table]:
    """Run the soak on the default models of `repository`; `model` is the folder of the chat model.

    The thresholds of the returned tables are all met if nothing was wrong.
    """
    words = [text for _, text in single_token_words(repository / model / "1" / "tokenizer.json")]
    load = MixedLoad(
        workloads.make_workloads(words, random.Random(seed)),
        invalid_requests.make_invalid_requests(),
        random.Random(seed),
    )
    with deploy(repository, attacked=attacked) as running:
        return asyncio.run(_soak(running, load, 60 * minutes, faults=faults, seed=seed if attacked else None))


async def _soak(
    running: SoakDeployment, load: MixedLoad, seconds: float, *, faults: bool, seed: int | None
) -> list[Table]:
    """Run the soak. `seed` is for the attackers; None means no attackers."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=300)) as session:
        await load.record_baselines(SoakClient(session, running.gateway.url))
    warm = [await load.warm_up(running.gateway.url), await load.run(running.gateway.url, WARM)]
    since = time.perf_counter()
    before, _ = await resources.wait_until_idle(running, since)
    seen: list[resources.ResourceUsage] = []
    watching = asyncio.create_task(resources.sample_forever(running, seen, time.perf_counter()))
    attacking = None
    if seed is not None:
        attacking = asyncio.create_task(attackers.run_attackers(running.gateway.port, seconds, seed))
    tally = await load.run(running.gateway.url, seconds)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    attacked = await attacking if attacking else None
    after, left = await resources.wait_until_idle(running, since)
    quiet = warm[-1]
    for earlier in warm:
        _remember(tally, earlier)
    tables = [report.requests(tally, seconds), report.over_time(seen), report.at_rest(before, after, left)]
    if attacked:
        tables[1:] = map(attack_report.without_growth, tables[1:])
        tables += [attack_report.with_and_without(quiet, tally), attack_report.attacks(attacked, before, after, seen)]
    crowds = [await burst.run_burst(running, what) for what in ("chats", "embeddings")]
    tables.append(report.bursts(crowds, [text for each in crowds for text in burst.describe_faults(each)]))
    if faults:
        seen_out = await outage.kill_and_restart(running, load)
        tables.append(report.outages(seen_out, outage.describe_faults(seen_out)))
    return tables


def _remember(tally: RequestCounts, warm: RequestCounts) -> None:
    """Add the faults of the warm-up to those of the load."""
    tally.faults += warm.faults
    tally.num_faults += warm.num_faults
