"""Tasks of a gateway with two workers on SQLite: each runs once, whichever worker took it or is killed."""

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.fakes.scripted_model import DrawImages, ScriptedModel
from tests.wire.test_workers import run_workers

IMAGES = "/tritonic/v1/images"


async def submit(http: httpx.AsyncClient, prompt: str) -> str:
    """Submit a task. The first one creates the database, which takes long on a busy machine."""
    async with asyncio.timeout(60):
        while True:
            body = {"model": "painter", "prompt": prompt, "async": True}
            answer = await http.post(f"{IMAGES}/generations", json=body)
            if answer.status_code != 503:
                return str(answer.raise_for_status().json()["id"])
            await asyncio.sleep(1)


@pytest.mark.timeout(180)
async def test_two_workers_run_each_task_once(tmp_path: Path) -> None:
    painter = ScriptedModel("painter", (DrawImages(6, pause=0.1),), is_image_model=True)
    async with run_workers(tmp_path, models=[painter], tasks_concurrency=3) as running, running.each() as clients:
        ids = await asyncio.gather(*(submit(clients[number % 2], f"image {number}") for number in range(10)))
        killed = running.answering(clients[0])
        max_active, states = 0, Counter[str]()
        async with asyncio.timeout(90):
            while states["completed"] < len(ids):
                answers = [await clients[1].get(f"{IMAGES}/{id}") for id in ids]
                states = Counter(answer.raise_for_status().json()["status"] for answer in answers)
                # The requests of the killed worker may still be open when its tasks run again: a task counts once.
                active = {call.prompt for call in running.triton.calls if not call.ended.is_set()}
                max_active = max(max_active, len(active))
                if killed and states["completed"] and states["in_progress"]:
                    os.kill(killed, signal.SIGKILL)
                    killed = 0
        assert not killed and 1 < max_active <= 3
        ended = Counter(call.prompt for call in running.triton.calls if call.cancelled_at is None)
        assert ended == {f"image {number}": 1 for number in range(10)}
