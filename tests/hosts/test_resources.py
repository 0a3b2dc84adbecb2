"""Memory, descriptors and connections of the gateways after faults are healed."""

import asyncio
import contextlib
import time
from collections.abc import Mapping

import httpx
import pytest

from tests.hosts.cluster import KEY, Cluster
from tests.hosts.faults import FaultLog

pytestmark = pytest.mark.hosts

_SETTLE_SECONDS = 90.0
_MEMORY_MB, _DESCRIPTORS, _CONNECTIONS = 15, 12, 10


async def _load(cluster: Cluster, seconds: float) -> None:
    """Send requests and tasks to all gateways. Failures do not matter here."""
    body = {"model": "quick", "messages": [{"role": "user", "content": "Hello"}]}
    image = {"model": "painter", "prompt": "load", "async": True}
    headers = {"Authorization": f"Bearer {KEY}"}

    async def send(url: str, body: Mapping[str, object]) -> None:
        with contextlib.suppress(httpx.TransportError):
            await http.post(url, json=body)

    async with httpx.AsyncClient(headers=headers, trust_env=False, timeout=30) as http:
        end, requests = time.monotonic() + seconds, []
        while time.monotonic() < end:
            for gateway in cluster.gateways:
                requests += [asyncio.create_task(send(f"{gateway.url}/v1/chat/completions", body)) for _ in range(4)]
                requests.append(asyncio.create_task(send(f"{gateway.url}/tritonic/v1/images/generations", image)))
            await asyncio.sleep(1.0)
        await asyncio.gather(*requests)


@pytest.mark.timeout(400)
async def test_gateways_release_what_faults_took(cluster: Cluster, fault_log: FaultLog) -> None:
    await _load(cluster, 6.0)
    await asyncio.sleep(15.0)
    before = [gateway.usage() for gateway in cluster.gateways]
    for _ in range(2):
        for gateway in cluster.gateways:
            for host in (cluster.tritons[0].host, cluster.tritons[1].host, cluster.postgres.host, cluster.valkey.host):
                cluster.network.cut(gateway.host, host)
        await _load(cluster, 10.0)
        cluster.network.heal_all()
        await _load(cluster, 4.0)
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        after = [gateway.usage() for gateway in cluster.gateways]
        grown = [{name: new[name] - old[name] for name in old} for old, new in zip(before, after, strict=True)]
        released = all(
            growth["memory_mb"] <= _MEMORY_MB
            and growth["descriptors"] <= _DESCRIPTORS
            and growth["connections"] <= _CONNECTIONS
            for growth in grown
        )
        if released or time.monotonic() > deadline:
            break
        await asyncio.sleep(2.0)
    fault_log.write("resources", before=before, after=after)
    assert released, grown
