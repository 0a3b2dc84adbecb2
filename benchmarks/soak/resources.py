"""Samples the resources of the service: memory, files, threads, processes, and the metrics of requests in progress."""

import asyncio
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields

import aiohttp
import psutil

from benchmarks.soak.deployment import SoakDeployment

SAMPLE_SECONDS = 2.0
"""Seconds between two samples."""
IDLE_TIMEOUT_SECONDS = 60.0
"""Seconds within which all gauges must fall to 0 after the last request."""
_GAUGE = re.compile(r"^(\w+_(?:active|waiting)|tritonic_in_flight)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ResourceUsage:
    """One sample. Memory is resident memory in MiB, summed over the processes of a program."""

    seconds: float
    """Seconds since the first sample."""
    gateway: float
    triton: float
    """Memory of tritonserver itself."""
    models: float
    """Memory of the processes that run its models."""
    gateway_files: int
    triton_files: int
    gateway_threads: int
    triton_threads: int
    processes: int
    answering: float
    """Memory of the gateway's worker process, which serves the requests, without the processes that decode files."""


def sample(service: SoakDeployment, since: float) -> ResourceUsage:
    """Take one sample; `since` is a time of the performance counter. A process that ends meanwhile counts as 0."""
    gateway, (server, *models) = service.processes()
    triton = [server, *models]
    return ResourceUsage(
        time.perf_counter() - since,
        _megabytes(gateway),
        _megabytes([server]),
        _megabytes(models),
        _sum(gateway, "num_fds"),
        _sum(triton, "num_fds"),
        _sum(gateway, "num_threads"),
        _sum(triton, "num_threads"),
        len(gateway) + len(triton),
        _megabytes(gateway[:1]),
    )


def _megabytes(processes: Sequence[psutil.Process]) -> float:
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 2**20


def _sum(processes: Sequence[psutil.Process], method: str) -> int:
    """Return the sum of a method of `psutil.Process` over the processes."""
    total = 0
    for process in processes:
        try:
            total += getattr(process, method)()
        except psutil.NoSuchProcess:
            continue
    return total


async def sample_forever(service: SoakDeployment, samples: list[ResourceUsage], since: float) -> None:
    """Append a sample to `samples` every SAMPLE_SECONDS, until cancelled."""
    while True:
        samples.append(sample(service, since))
        await asyncio.sleep(SAMPLE_SECONDS)


async def active_gauges(session: aiohttp.ClientSession, service: SoakDeployment) -> dict[str, float]:
    """Return the gauges of work in progress that are not 0, from the metrics of Triton's models and of the gateway."""
    gauges: dict[str, float] = {}
    for url in (service.triton.metrics_url, f"{service.gateway.url}/metrics"):
        async with session.get(url) as response:
            for name, value in _GAUGE.findall(await response.text()):
                if float(value):
                    gauges[name] = gauges.get(name, 0) + float(value)
    return gauges


async def wait_until_idle(service: SoakDeployment, since: float) -> tuple[ResourceUsage, dict[str, float]]:
    """Wait until no work is in progress. Return the resources at rest, and the gauges that are still not 0."""
    gauges: dict[str, float] = {}
    async with aiohttp.ClientSession() as session:
        end = time.monotonic() + IDLE_TIMEOUT_SECONDS
        while time.monotonic() < end:
            if not (gauges := await active_gauges(session, service)):
                break
            await asyncio.sleep(0.2)
    await asyncio.sleep(2.0)
    return median_usage([sample(service, since) for _ in range(3)]), gauges


def median_usage(samples: Sequence[ResourceUsage]) -> ResourceUsage:
    """Return the median of each value separately."""
    return ResourceUsage(
        *(statistics.median(getattr(usage, field.name) for usage in samples) for field in fields(ResourceUsage))
    )


def first_and_last(samples: Sequence[ResourceUsage], share: float = 0.25) -> tuple[ResourceUsage, ResourceUsage]:
    """Return the medians of the first and the last `share` of a series. A single sample could be an outlier."""
    size = max(1, round(len(samples) * share))
    return median_usage(samples[:size]), median_usage(samples[-size:])


def growth_percent(before: float, after: float) -> float:
    """Return the growth in percent; below 0 for a decrease."""
    return 100 * (after / before - 1)
