"""Tasks of a gateway of two workers, in its SQLite file: done once each, whichever took them and whoever is killed."""

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.fakes.scripted_model import DrawImages, ScriptedModel
from tests.wire.test_workers import crew

IMAGES = "/tritonic/v1/images"


async def submit(http: httpx.AsyncClient, prompt: str) -> str:
    """Queue a drawing; the first one makes the database, for which a busy machine takes long."""
    async with asyncio.timeout(60):
        while True:
            body = {"model": "painter", "prompt": prompt, "async": True}
            answer = await http.post(f"{IMAGES}/generations", json=body)
            if answer.status_code != 503:
                return str(answer.raise_for_status().json()["id"])
            await asyncio.sleep(1)


@pytest.mark.timeout(180)
async def test_tasks_of_two_workers(tmp_path: Path) -> None:
    painter = ScriptedModel("painter", (DrawImages(6, pause=0.1),), is_image_model=True)
    async with crew(tmp_path, models=[painter], tasks_concurrency=3) as running, running.each() as each:
        ids = await asyncio.gather(*(submit(each[number % 2], f"picture {number}") for number in range(10)))
        killed = running.answering(each[0])
        most, states = 0, Counter[str]()
        async with asyncio.timeout(90):
            while states["completed"] < len(ids):
                answers = [await each[1].get(f"{IMAGES}/{id}") for id in ids]
                states = Counter(answer.raise_for_status().json()["status"] for answer in answers)
                most = max(most, running.triton.active)
                if killed and states["completed"] and states["in_progress"]:
                    os.kill(killed, signal.SIGKILL)
                    killed = 0
        assert not killed and 1 < most <= 3
        ended = Counter(call.prompt for call in running.triton.calls if call.cancelled_at is None)
        assert ended == {f"picture {number}": 1 for number in range(10)}
