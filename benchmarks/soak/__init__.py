"""The soak test: minutes of mixed load on the whole service, and a check of its resources afterwards.

Several callers send chats, embeddings, image generations, edits and tasks. Requests are streamed or not, sampled, sent
in part, invalid in every dialect, or above the rate limit. Clients read slowly, or disconnect at random moments. Each
answer must equal its baseline, the answer to the same request alone. Each refusal must have an error message. At the
end no request may be in progress, and memory, open files, threads and processes may not have grown. Then follows a
burst of as many requests as one caller may have open. With `faults`, Triton is killed under load and restarted. With
`attacked`, attackers are among the callers, and no honest request may be lost.
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
WARM_UP_SECONDS = 60.0
"""Seconds of the same load before the measurement, after each request was sent once. One-time allocations (threads,
arenas, compiled grammars, pages of slots and of the prefix cache) do not count as growth."""


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
    warm_up = [await load.warm_up(running.gateway.url), await load.run(running.gateway.url, WARM_UP_SECONDS)]
    since = time.perf_counter()
    before, _ = await resources.wait_until_idle(running, since)
    samples: list[resources.ResourceUsage] = []
    sampling = asyncio.create_task(resources.sample_forever(running, samples, time.perf_counter()))
    attacking = None
    if seed is not None:
        attacking = asyncio.create_task(attackers.run_attackers(running.gateway.port, seconds, seed))
    counts = await load.run(running.gateway.url, seconds)
    sampling.cancel()
    await asyncio.gather(sampling, return_exceptions=True)
    attack_results = await attacking if attacking else None
    after, gauges = await resources.wait_until_idle(running, since)
    for warm_up_counts in warm_up:
        _add_faults(counts, warm_up_counts)
    tables = [report.requests(counts, seconds), report.over_time(samples), report.at_rest(before, after, gauges)]
    if attack_results:
        tables[1:] = map(attack_report.without_growth, tables[1:])
        tables.append(attack_report.with_and_without(warm_up[-1], counts))
        tables.append(attack_report.attacks(attack_results, before, after, samples))
    bursts = [await burst.run_burst(running, operation) for operation in ("chats", "embeddings")]
    tables.append(report.bursts(bursts, [text for each in bursts for text in burst.describe_faults(each)]))
    if faults:
        result = await outage.kill_and_restart(running, load)
        tables.append(report.outages(result, outage.describe_faults(result)))
    return tables


def _add_faults(counts: RequestCounts, warm_up: RequestCounts) -> None:
    """Add the faults of the warm-up to those of the load."""
    counts.faults += warm_up.faults
    counts.num_faults += warm_up.num_faults
