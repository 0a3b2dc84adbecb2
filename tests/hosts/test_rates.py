"""Rate limits that the gateways count together, while Valkey is cut off from some or all of them."""

import asyncio
import time

import httpx
import pytest

from tests.hosts.cluster import LIMITED_KEY, RATE, RATE_SECONDS, Cluster
from tests.hosts.faults import FaultLog
from tests.hosts.services import Gateway

pytestmark = pytest.mark.hosts

_RETRY_SECONDS = 6.0
"""Seconds after which a gateway tries Valkey again, and the second that it waits."""


async def _admitted(gateway: Gateway, count: int) -> int:
    """Send requests one after another. Return how many were admitted; the others must be a 429."""
    headers = {"Authorization": f"Bearer {LIMITED_KEY}"}
    body = {"model": "quick", "messages": [{"role": "user", "content": "Hello"}]}
    async with httpx.AsyncClient(headers=headers, trust_env=False, timeout=30) as http:
        statuses = [
            (await http.post(f"{gateway.url}/v1/chat/completions", json=body)).status_code for _ in range(count)
        ]
    assert set(statuses) <= {200, 429}
    return statuses.count(200)


async def _burst(cluster: Cluster) -> list[int]:
    """Send more requests to each gateway than the rate admits. Return how many each has admitted."""
    began = time.monotonic()
    admitted = await asyncio.gather(*(_admitted(gateway, RATE + 2) for gateway in cluster.gateways))
    assert time.monotonic() - began < RATE_SECONDS, "the machine is too slow for this window"
    return list(admitted)


async def _unshared(gateway: Gateway) -> float:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
        lines = (await http.get(f"{gateway.url}/metrics")).text.splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("tritonic_rates_unshared_total"))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("num_cut", [1, 3])
async def test_gateways_without_the_store_count_alone_and_share_again_when_it_is_back(
    cluster: Cluster, fault_log: FaultLog, num_cut: int
) -> None:
    shared = await _burst(cluster)
    assert sum(shared) == RATE
    await asyncio.sleep(RATE_SECONDS + 1)
    before = [await _unshared(gateway) for gateway in cluster.gateways]
    cut, connected = cluster.gateways[:num_cut], cluster.gateways[num_cut:]
    for gateway in cut:
        cluster.network.cut(gateway.host, cluster.valkey.host)
    alone = await _burst(cluster)
    grown = [await _unshared(gateway) - old for gateway, old in zip(cluster.gateways, before, strict=True)]
    cluster.network.heal_all()
    await asyncio.sleep(max(_RETRY_SECONDS, RATE_SECONDS + 1))
    again = await _burst(cluster)
    fault_log.write("rates", cut=num_cut, shared=shared, alone=alone, unshared_requests=grown, again=again)
    assert alone[:num_cut] == [RATE] * num_cut, "a gateway that is cut off counts alone, within the limit"
    assert sum(alone[num_cut:]) == (RATE if connected else 0), "the others still count together"
    assert grown == [RATE + 2] * num_cut + [0] * len(connected)
    assert sum(again) == RATE
    await asyncio.sleep(RATE_SECONDS + 1)
