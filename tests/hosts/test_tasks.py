"""Tasks under random faults: each is completed once, or failed with its reason."""

import asyncio
import os
import random
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

    async def submit(self, number: int) -> str:
        body = {"model": "painter", "prompt": f"image {number}", "async": True}
        headers = {"Idempotency-Key": f"task {number}"}
        return (await self.send("POST", f"{_PATH}/generations", json=body, headers=headers)).json()["id"]

    async def wait_finished(self, id: str) -> dict[str, Any]:
        while True:
            task = (await self.send("GET", f"{_PATH}/{id}")).json()
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
    failed = [task["error"] for task in tasks if task["status"] == "failed"]
    fault_log.write("tasks", tasks=TASKS, faults=FAULTS, states=states, failed=failed, refused=caller.refused)
    assert len(set(ids)) == TASKS and not states["cancelled"]
    assert all(error["code"] and error["message"] for error in failed)
    urls = [image["url"] for task in tasks if task["status"] == "completed" for image in task["data"]]
    assert len(set(urls)) == len(urls) == states["completed"]
    for url in urls:
        path = url.partition("/files/")[2]
        assert (await caller.send("GET", f"/files/{path}")).content.startswith(b"\x89PNG")
    with psycopg.connect(cluster.postgres.url("tasks")) as connection:
        rows: dict[str, int] = dict(
            connection.execute("SELECT status, count(*) FROM dbos.workflow_status GROUP BY status").fetchall()
        )
        runs = connection.execute("SELECT recovery_attempts, count(*) FROM dbos.workflow_status GROUP BY 1").fetchall()
    fault_log.write("rows", rows=rows, runs=dict(runs))
    assert sum(rows.values()) == TASKS + 1
    assert rows.get("SUCCESS", 0) == states["completed"] + 1 and rows.get("ERROR", 0) == states["failed"]
    await caller.http.aclose()
