"""The soak: a bounded mixed load on the real service, as users are, and what it leaves behind.

Chats, embeddings, pictures, edits and tasks of several callers, streamed and whole, slowly read, hung up at any moment,
drawn by lot, sent in halves, wrong in every dialect, and more often than a caller may. Every answer must be the one
that the same request had alone; every refusal must say why; in the end nothing is under way, and neither memory nor
files, threads or processes have grown. Then as many requests at once as one caller may have open; with `faults`, Triton
is killed under load and comes back. With `attacked`, attackers are among the callers: no honest request may be lost.
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
"""Of load; the whole takes three or four minutes more."""
WARM = 60.0
"""Seconds of the same load before anything is measured, after each thing was done once: what is allocated once
(threads, arenas, compiled grammars, pages of rows and kept prompts) is no growth."""


def run(
    repository: Path,
    model: str,
    minutes: float = MINUTES,
    *,
    faults: bool = False,
    attacked: bool = False,
    seed: int = 17,
) -> list[Table]:
    """Run it on the default models of `repository`; `model` is the folder of the one that chats.

    What was wrong is in the tables' bars: all of them are met where nothing was.
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
    """`seed` is that of the attackers; None: there are none."""
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
    """A fault of the warm-up is a fault, too."""
    tally.faults += warm.faults
    tally.num_faults += warm.num_faults
