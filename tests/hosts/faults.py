"""Random faults of the hosts: which one is next depends on a seed alone. Each is written into a log."""

import asyncio
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hosts.cluster import Cluster

_LONG = ("cut gateway-postgres",)
_TAKEOVER_SECONDS = 22.0
"""Seconds after which the tasks of a gateway without a connection to Postgres are run by others."""


class FaultLog:
    """The faults of one run: the seed first, then a line for each fault and each result."""

    def __init__(self, path: Path, seed: int) -> None:
        self._file = path
        self._began = time.monotonic()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        self.write("seed", seed=seed)

    def write(self, event: str, **facts: Any) -> None:
        line = json.dumps({"seconds": round(time.monotonic() - self._began, 2), "event": event, **facts})
        with self._file.open("a") as log:
            log.write(line + "\n")
        sys.stdout.write(line + "\n")


class RandomFaults:
    """Faults that begin at random moments, last for seconds, and end before the next begins.

    Every kind comes once before one comes again.
    """

    def __init__(self, cluster: Cluster, log: FaultLog, seed: int) -> None:
        self._cluster, self._log = cluster, log
        self._random = random.Random(seed)
        self._coming: list[str] = []

    async def one(self) -> None:
        """Let one fault begin, last and end."""
        cluster, choose = self._cluster, self._random.choice
        network = cluster.network
        gateway, triton = choose(cluster.gateways), choose(cluster.tritons)
        kinds: dict[str, tuple[str, Callable[[], object], Callable[[], Any]]] = {
            "cut gateway-triton": (
                f"{gateway.host}-{triton.host}",
                lambda: network.cut(gateway.host, triton.host),
                lambda: network.heal(gateway.host, triton.host),
            ),
            "cut gateway-postgres": (
                f"{gateway.host}-postgres",
                lambda: network.cut(gateway.host, cluster.postgres.host),
                lambda: network.heal(gateway.host, cluster.postgres.host),
            ),
            "cut gateway-valkey": (
                f"{gateway.host}-valkey",
                lambda: network.cut(gateway.host, cluster.valkey.host),
                lambda: network.heal(gateway.host, cluster.valkey.host),
            ),
            "cut client-gateway": (
                f"client-{gateway.host}",
                lambda: network.cut(cluster.client, gateway.host),
                lambda: network.heal(cluster.client, gateway.host),
            ),
            "freeze triton": (str(triton.host), triton.host.freeze, triton.host.thaw),
            "freeze gateway": (str(gateway.host), gateway.host.freeze, gateway.host.thaw),
            "freeze postgres": ("postgres", cluster.postgres.host.freeze, cluster.postgres.host.thaw),
            "kill triton": (str(triton.host), triton.kill, triton.start),
            "kill gateway": (str(gateway.host), gateway.kill, gateway.start),
            "kill postgres": ("postgres", cluster.postgres.kill, cluster.postgres.start),
            "slow triton": (
                str(triton.host),
                lambda: triton.host.slow_down("64kbit"),
                triton.host.full_speed,
            ),
        }
        if not self._coming:
            self._coming = sorted(kinds)
            self._random.shuffle(self._coming)
        kind = self._coming.pop()
        where, begin, end = kinds[kind]
        seconds = self._random.uniform(1.0, 8.0)
        if kind in _LONG:
            seconds += _TAKEOVER_SECONDS
        seconds = round(seconds, 1)
        self._log.write("fault", kind=kind, where=where, lasts=seconds)
        await asyncio.to_thread(begin)
        try:
            await asyncio.sleep(seconds)
        finally:
            end()  # not in a thread: what it starts would end with that thread
            self._log.write("healed", kind=kind, where=where)
        await asyncio.sleep(self._random.uniform(0.2, 1.0))
