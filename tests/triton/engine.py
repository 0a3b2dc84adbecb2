"""The metrics of the LLM engine, read from Triton."""

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx

_SAMPLE = re.compile(r'^llm_(\w+)\{model="([^"]+)"\} (\S+)$', re.MULTILINE)

_BEHIND = 0.15
"""Seconds after which the metrics are certainly up to date."""

Figures = dict[str, int]


@dataclass(frozen=True, slots=True)
class Engine:
    """Reads Triton's metrics at `url`, which the backend updates ten times a second."""

    url: str
    http: httpx.AsyncClient

    async def figures(self, model: str) -> Figures:
        """Return `rows_active`, `rows_waiting`, `tokens_out_total` and so on of a model."""
        text = (await self.http.get(self.url)).text
        return {name: int(float(value)) for name, found, value in _SAMPLE.findall(text) if found == model}

    async def until(self, model: str, check: Callable[[Figures], bool], seconds: float = 20.0) -> float:
        """Wait until `check` holds, and return the time of the monotonic clock at which it did."""
        figures: Figures = {}
        try:
            async with asyncio.timeout(seconds):
                while not check(figures := await self.figures(model)):
                    await asyncio.sleep(0.005)
        except TimeoutError:
            raise AssertionError(f"After {seconds} seconds the engine still says {figures}.") from None
        return time.monotonic()

    async def idle(self, model: str, seconds: float = 20.0) -> float:
        """Wait until no row is active and no request waits."""
        await asyncio.sleep(_BEHIND)
        return await self.until(model, lambda now: not now["rows_active"] and not now["rows_waiting"], seconds)
