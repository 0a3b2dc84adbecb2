"""Requests and streams while a Triton is cut off, frozen, killed or slow."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx
import pytest

from tests.hosts.cluster import KEY, TRITONS, Cluster
from tests.hosts.faults import FaultLog

pytestmark = pytest.mark.hosts

FAILOVER_SECONDS = 5.0
"""Most seconds from a fault to the first success, and after which no request fails."""
MOVE_SECONDS = 10.0
"""Most seconds for a request that was sent before a fault was noticed: three seconds of silence move it."""
WATCH_SECONDS = 14.0
STREAM_END_SECONDS = 60.0
"""Most seconds from a fault to the end of a stream: 20 for a lost host, about 40 for a frozen one."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A request: seconds after the fault at which it was sent and answered, the status, and the server."""

    began: float
    ended: float
    status: int
    server: str


def _client() -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {KEY}"}
    return httpx.AsyncClient(headers=headers, trust_env=False, timeout=60, limits=httpx.Limits(max_connections=None))


async def _ask(http: httpx.AsyncClient, url: str, fault: float) -> Sent:
    body = {"model": "quick", "messages": [{"role": "user", "content": "Which server are you?"}]}
    began = time.monotonic() - fault
    response = await http.post(f"{url}/v1/chat/completions", json=body)
    ended = time.monotonic() - fault
    server = response.json()["choices"][0]["message"]["content"] if response.status_code == 200 else ""
    return Sent(began, ended, response.status_code, server)


async def _watch(cluster: Cluster, fault: float) -> list[Sent]:
    """Send four requests at once to each gateway, twice a second, and return the answers to all."""
    async with _client() as http:
        requests = []
        while time.monotonic() - fault < WATCH_SECONDS:
            burst = [_ask(http, gateway.url, fault) for gateway in cluster.gateways for _ in range(4)]
            requests += [asyncio.create_task(request) for request in burst]
            await asyncio.sleep(0.5)
        return await asyncio.gather(*requests)


def _check(cluster: Cluster, sent: list[Sent], gone: set[str], log: FaultLog, kind: str) -> None:
    good = [request for request in sent if request.status == 200]
    others = [request for request in good if request.server not in gone]
    late = [request for request in sent if request.began >= FAILOVER_SECONDS]
    first = min((request.ended for request in others), default=None)
    slowest = max(request.ended - request.began for request in late)
    statuses = Counter(str(request.status) for request in sent)
    log.write(
        "failover",
        kind=kind,
        first_success=None if first is None else round(first, 3),
        statuses=dict(statuses),
        slowest_after_5_s=round(slowest, 2),
        slowest=round(max(request.ended - request.began for request in sent), 2),
    )
    assert max(request.ended - request.began for request in sent) <= MOVE_SECONDS
    assert first is not None and first <= FAILOVER_SECONDS
    assert {request.status for request in late} == {200}, [request for request in late if request.status != 200]
    assert slowest <= FAILOVER_SECONDS, "a request went to a server that does not answer"
    assert not gone & {request.server for request in late if request.ended < WATCH_SECONDS}
    assert set(statuses) == {"200"}, "a request that had no response yet is sent to another server"


async def _fail(cluster: Cluster, log: FaultLog, kind: str, begin: Callable[[], Awaitable[object]]) -> None:
    """Watch requests during a fault of the first Triton."""
    async with _client() as http:
        warm = [await _ask(http, gateway.url, 0.0) for gateway in cluster.gateways for _ in range(3)]
    assert {request.status for request in warm} == {200}
    await begin()
    _check(cluster, await _watch(cluster, time.monotonic()), {"triton1"}, log, kind)


async def _healed(cluster: Cluster) -> None:
    """Wait until every gateway uses every Triton again."""
    async with _client() as http, asyncio.timeout(60):
        for gateway in cluster.gateways:
            servers: set[str] = set()
            while servers != {triton.host.name for triton in cluster.tritons}:
                sent = await asyncio.gather(*(_ask(http, gateway.url, 0.0) for _ in range(6)))
                servers |= {request.server for request in sent if request.status == 200}
                await asyncio.sleep(0.2)


@pytest.mark.timeout(180)
async def test_requests_go_to_other_servers_when_links_to_one_are_cut(cluster: Cluster, fault_log: FaultLog) -> None:
    async def begin() -> None:
        for gateway in cluster.gateways:
            cluster.network.cut(gateway.host, cluster.tritons[0].host)

    await _fail(cluster, fault_log, "cut", begin)
    cluster.network.heal_all()
    await _healed(cluster)


@pytest.mark.timeout(180)
async def test_requests_go_to_other_servers_when_one_is_frozen(cluster: Cluster, fault_log: FaultLog) -> None:
    await _fail(cluster, fault_log, "freeze", lambda: asyncio.to_thread(cluster.tritons[0].host.freeze))
    cluster.network.heal_all()
    await _healed(cluster)


@pytest.mark.timeout(180)
async def test_requests_go_to_other_servers_when_one_is_killed(cluster: Cluster, fault_log: FaultLog) -> None:
    await _fail(cluster, fault_log, "kill", lambda: asyncio.to_thread(cluster.tritons[0].kill))
    cluster.tritons[0].start()
    await _healed(cluster)


@pytest.mark.timeout(180)
async def test_one_server_serves_everything_when_two_are_cut_off(cluster: Cluster, fault_log: FaultLog) -> None:
    for gateway in cluster.gateways:
        for triton in cluster.tritons[:2]:
            cluster.network.cut(gateway.host, triton.host)
    _check(cluster, await _watch(cluster, time.monotonic()), {"triton1", "triton2"}, fault_log, "cut two")
    cluster.network.heal_all()
    await _healed(cluster)


async def _stream(http: httpx.AsyncClient, url: str) -> tuple[str, list[str], float]:
    """Return the server of a stream, its events, and the time of its end."""
    body = {"model": "slow", "messages": [{"role": "user", "content": "x" * 300}], "stream": True}
    events = []
    async with http.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
        assert response.status_code == 200
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                events.append(line.removeprefix("data: "))
    chunks = (json.loads(event) for event in events if event.startswith('{"id"'))
    texts = (choice["delta"].get("content") for chunk in chunks for choice in chunk["choices"])
    text = "".join(filter(None, texts))
    assert text.startswith(TRITONS), text[:100]
    return text[: len(TRITONS[0])], events, time.monotonic()


@pytest.mark.timeout(240)
@pytest.mark.parametrize("kind", ["cut", "freeze", "kill"])
async def test_streams_of_a_lost_server_end_with_an_error_event(
    cluster: Cluster, fault_log: FaultLog, kind: str
) -> None:
    triton = cluster.tritons[0]
    async with _client() as http:
        http.timeout = httpx.Timeout(STREAM_END_SECONDS + 40)
        streams = [asyncio.create_task(_stream(http, gateway.url)) for gateway in cluster.gateways for _ in range(3)]
        await asyncio.sleep(2.0)
        began = time.monotonic()
        match kind:
            case "cut":
                for gateway in cluster.gateways:
                    cluster.network.cut(gateway.host, triton.host)
            case "freeze":
                triton.host.freeze()
            case "kill":
                await asyncio.to_thread(triton.kill)
        answers = await asyncio.gather(*streams)
    lost = [events for server, events, _ in answers if server == triton.host.name]
    whole = [events for server, events, _ in answers if server != triton.host.name]
    seconds = max((ended - began for server, _, ended in answers if server == triton.host.name), default=0.0)
    fault_log.write("streams", kind=kind, lost=len(lost), whole=len(whole), ended_after=round(seconds, 1))
    assert lost and whole
    assert all("error" in json.loads(events[-1]) for events in lost), [events[-1] for events in lost]
    assert all(events[-1] == "[DONE]" for events in whole)
    assert seconds < STREAM_END_SECONDS
    if kind == "kill":
        triton.start()
    cluster.network.heal_all()
    await _healed(cluster)


@pytest.mark.timeout(120)
async def test_a_slow_link_of_one_server_delays_no_request_to_others(cluster: Cluster, fault_log: FaultLog) -> None:
    host = cluster.tritons[0].host
    host.slow_down("16kbit")
    try:
        sent = await _watch(cluster, time.monotonic())
    finally:
        host.full_speed()
    others = [request.ended - request.began for request in sent if request.server != host.name]
    # A request whose slow server sent nothing for three seconds was moved to one of the others.
    moved = [seconds for seconds in others if seconds > FAILOVER_SECONDS]
    statuses = Counter(str(request.status) for request in sent)
    slowest = round(max(request.ended - request.began for request in sent), 2)
    fault_log.write("slow", statuses=dict(statuses), others=len(others), moved=len(moved), slowest=slowest)
    assert {request.status for request in sent} == {200}
    assert len(moved) <= 0.05 * len(others)
    await _healed(cluster)
