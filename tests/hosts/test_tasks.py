"""Tasks under random faults: each is completed once, or failed with its reason."""

import asyncio
import os
import random
import time
from collections import Counter
from typing import Any

import httpx
import psycopg
import pytest

from tests.hosts.cluster import KEY, Cluster
from tests.hosts.faults import FaultLog, RandomFaults

pytestmark = pytest.mark.hosts

TASKS = int(os.environ.get("TRITONIC_HOSTS_TASKS") or 60)
FAULTS = int(os.environ.get("TRITONIC_HOSTS_FAULTS") or 6)
_FINISH_SECONDS = 240.0
_LOCK_SECONDS = 5.0
"""Seconds in which a gateway that has just begun to run tasks takes the lock that shows it is alive."""
_TAKEOVER_SECONDS = 45.0
"""Most seconds until another gateway runs the tasks of one that vanished: 11 until Postgres notices, then 10 more."""
_PATH = "/tritonic/v1/images"


class _Caller:
    """Sends requests to a random gateway, and to another one after a failure, as a balancer would."""

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self._cluster, self._random = cluster, random.Random(seed)
        headers = {"Authorization": f"Bearer {KEY}"}
        self.http = httpx.AsyncClient(headers=headers, trust_env=False, timeout=httpx.Timeout(10, connect=2))
        self.refused: Counter[str] = Counter()

    async def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        while True:
            gateway = self._random.choice(self._cluster.gateways)
            try:
                response = await self.http.request(method, gateway.url + path, **options)
                if response.status_code < 500:
                    assert response.status_code == 200, response.text
                    return response
                self.refused[str(response.status_code)] += 1
            except httpx.TransportError as error:
                self.refused[type(error).__name__] += 1
            await asyncio.sleep(0.5)

    async def submit(self, number: int, model: str = "painter") -> str:
        body = {"model": model, "prompt": f"image {number}", "async": True}
        headers = {"Idempotency-Key": f"task {number}"}
        return (await self.send("POST", f"{_PATH}/generations", json=body, headers=headers)).json()["id"]

    async def wait_finished(self, id: str) -> dict[str, Any]:
        while True:
            task = (await self.send("GET", f"{_PATH}/{id}?detail=true")).json()
            if task["status"] in ("completed", "failed", "cancelled"):
                return task
            await asyncio.sleep(1.0)


async def _submit_slowly(caller: _Caller, seconds: float) -> list[str]:
    async def later(number: int) -> str:
        await asyncio.sleep(seconds * number / TASKS)
        return await caller.submit(number)

    return await asyncio.gather(*(later(number) for number in range(TASKS)))


@pytest.mark.timeout(1200)
async def test_each_task_is_completed_once_or_failed_with_its_reason(
    cluster: Cluster, fault_log: FaultLog, seed: int
) -> None:
    caller, faults = _Caller(cluster, seed), RandomFaults(cluster, fault_log, seed)
    await caller.submit(-1)  # loads the library of tasks, and makes the database
    rows_before = _count_rows(cluster)
    submitting = asyncio.create_task(_submit_slowly(caller, 4.0 * FAULTS))
    try:
        for _ in range(FAULTS):
            await faults.one()
        for gateway in cluster.gateways:
            await asyncio.to_thread(gateway.wait_ready)
        async with asyncio.timeout(_FINISH_SECONDS):
            ids = await submitting
            tasks = await asyncio.gather(*(caller.wait_finished(id) for id in ids))
    finally:
        submitting.cancel()
    states = Counter(task["status"] for task in tasks)
    failed = [task["detail"]["error"] for task in tasks if task["status"] == "failed"]
    fault_log.write("tasks", tasks=TASKS, faults=FAULTS, states=states, failed=failed, refused=caller.refused)
    assert len(set(ids)) == TASKS and not states["cancelled"]
    assert all(error["code"] and error["message"] for error in failed)
    urls = [image["url"] for task in tasks if task["status"] == "completed" for image in task["detail"]["data"]]
    assert len({url.partition("?")[0] for url in urls}) == len(urls) == states["completed"]
    for url in urls:
        path = url.partition("/files/")[2]
        assert (await caller.send("GET", f"/files/{path}")).content.startswith(b"\x89PNG")
    with psycopg.connect(cluster.postgres.url("tasks")) as connection:
        query = "SELECT status, recovery_attempts FROM dbos.workflow_status WHERE workflow_uuid = ANY(%s)"
        rows = connection.execute(query, (ids,)).fetchall()
    statuses, runs = Counter(status for status, _ in rows), Counter(str(runs) for _, runs in rows)
    fault_log.write("rows", statuses=statuses, runs=runs)
    assert statuses["SUCCESS"] == states["completed"] and statuses["ERROR"] == states["failed"]
    assert _count_rows(cluster) - rows_before == TASKS == len(rows)
    await caller.http.aclose()


def _count_rows(cluster: Cluster) -> int:
    with psycopg.connect(cluster.postgres.url("tasks")) as connection:
        row = connection.execute("SELECT count(*) FROM dbos.workflow_status").fetchone()
    assert row is not None
    return int(row[0])


def _executors(cluster: Cluster, ids: list[str]) -> dict[str, str]:
    """Return the gateway's name in the database for each of the tasks that runs."""
    with psycopg.connect(cluster.postgres.url("tasks")) as connection:
        rows = connection.execute(
            "SELECT workflow_uuid, executor_id FROM dbos.workflow_status"
            " WHERE status = 'PENDING' AND workflow_uuid = ANY(%s)",
            (ids,),
        )
        return dict(rows.fetchall())


@pytest.mark.timeout(300)
async def test_tasks_of_a_gateway_that_vanishes_are_run_by_another(cluster: Cluster, fault_log: FaultLog) -> None:
    """A machine that loses power closes no connection: Postgres has to notice by itself that it is gone."""
    caller = _Caller(cluster, 1)
    ids = [await caller.submit(number, "patient-painter") for number in (-2, -3, -4)]
    async with asyncio.timeout(30):
        while len(executors := await asyncio.to_thread(_executors, cluster, ids)) < len(ids):
            await asyncio.sleep(0.2)
    names = {(gateway.folder / "state/gateways/0.lock").read_text().strip(): gateway for gateway in cluster.gateways}
    vanished = names[executors[ids[0]]]
    await asyncio.sleep(_LOCK_SECONDS)
    began = time.monotonic()
    cluster.network.cut(vanished.host, cluster.postgres.host)
    await asyncio.to_thread(vanished.kill)
    async with asyncio.timeout(_TAKEOVER_SECONDS):
        while (await asyncio.to_thread(_executors, cluster, ids[:1])).get(ids[0]) == executors[ids[0]]:
            await asyncio.sleep(0.5)
    taken = time.monotonic() - began
    async with asyncio.timeout(120):
        tasks = await asyncio.gather(*(caller.wait_finished(id) for id in ids))
    fault_log.write(
        "gateway vanished", taken_over_after=round(taken, 1), finished_after=round(time.monotonic() - began, 1)
    )
    assert {task["status"] for task in tasks} == {"completed"}
    cluster.network.heal_all()
    vanished.start()
    await asyncio.to_thread(vanished.wait_ready)
    await caller.http.aclose()
