"""The metrics of the LLM engine, read from Triton."""

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx

_SAMPLE = re.compile(r'^llm_(\w+)\{model="([^"]+)"\} (\S+)$', re.MULTILINE)

_METRICS_LAG = 0.15
"""Seconds after which the metrics are up to date."""

Stats = dict[str, int]


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """Reads Triton's metrics at `url`, which the backend updates ten times a second."""

    url: str
    http: httpx.AsyncClient

    async def stats(self, model: str) -> Stats:
        """Return `rows_active`, `rows_waiting`, `tokens_out_total` and so on of a model."""
        text = (await self.http.get(self.url)).text
        return {name: int(float(value)) for name, found, value in _SAMPLE.findall(text) if found == model}

    async def wait_until(self, model: str, check: Callable[[Stats], bool], seconds: float = 20.0) -> float:
        """Wait until `check` holds, and return the time of the monotonic clock at which it did."""
        stats: Stats = {}
        try:
            async with asyncio.timeout(seconds):
                while not check(stats := await self.stats(model)):
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(f"After {seconds} seconds the engine still reports {stats}.") from None
        return time.monotonic()

    async def wait_idle(self, model: str, seconds: float = 20.0) -> float:
        """Wait until no row is active and no request waits."""
        await asyncio.sleep(_METRICS_LAG)
        return await self.wait_until(model, lambda now: not now["rows_active"] and not now["rows_waiting"], seconds)
