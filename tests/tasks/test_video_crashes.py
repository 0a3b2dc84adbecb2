"""Killed gateways and Tritons lose no video, make none twice, and forget no webhook."""

import asyncio
import random
import sys
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.scripted_model import FilmVideo, ScriptedModel
from tests.fakes.tcp_proxy import TcpProxy
from tests.fakes.triton import FakeTriton
from tests.fakes.webhook_receiver import WebhookReceiver
from tests.tasks.gateway_processes import TaskGateway

TASKS, CONCURRENCY = 100, 8
GATEWAY_KILLS, TRITON_KILLS = 5, 2
BODY = {"model": "film", "seconds": 0.5, "seed": 5}


async def submit(gateway: TaskGateway, prompt: str, webhook_url: str) -> str:
    """Ask for a video, and repeat the request with the same idempotency key while the gateway is not ready for it."""
    body = {**BODY, "prompt": prompt, "webhook_url": webhook_url}
    headers = {"Idempotency-Key": uuid.uuid4().hex}
    async with asyncio.timeout(60):
        while True:
            response = await gateway.http.post("/v1/videos", json=body, headers=headers, timeout=40)
            if response.status_code != 503:
                assert response.status_code == 200, response.text
                id: str = response.json()["id"]
                return id
            await asyncio.sleep(1)


async def completed(gateway: TaskGateway) -> set[str]:
    """Return the prompts of the completed videos."""
    tasks = await gateway.tasks()
    assert not [task["error"] for task in tasks if task["state"] in ("failed", "cancelled")]
    return {task["request"]["prompt"] for task in tasks if task["state"] == "completed"}


@pytest.mark.timeout(240)
async def test_a_hundred_videos_survive_kills_of_the_gateway_and_of_triton(database: str, tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    sys.stdout.write(f"seed {seed}\n")
    script = (FilmVideo(8, pause=0.05),)
    triton = await FakeTriton([ScriptedModel("film", script, is_video_model=True)]).start()
    # To its clients, a killed Triton is one whose connections break and that accepts no new ones.
    connection = await TcpProxy(triton.url).listen()
    receiver = await WebhookReceiver().start()
    options: dict[str, Any] = {"tasks_concurrency": CONCURRENCY, "webhook_allowed_hosts": "127.0.0.1"}
    gateway = await TaskGateway(tmp_path / "state", connection.url, database, **options).start()
    prompts = {f"video {i}" for i in range(TASKS)}
    kills = ["gateway"] * GATEWAY_KILLS + ["triton"] * TRITON_KILLS
    rng.shuffle(kills)
    try:
        ids = await asyncio.gather(*(submit(gateway, prompt, receiver.url()) for prompt in prompts))
        assert len(set(ids)) == TASKS
        for killed in kills:
            async with asyncio.timeout(30):
                while not triton.active:
                    await asyncio.sleep(0.02)
            await asyncio.sleep(rng.uniform(0.1, 0.5))
            before, finished = len(triton.calls), await completed(gateway)
            # The kill comes at a random moment of the running tasks.
            await asyncio.sleep(rng.uniform(0.0, 0.1))
            if killed == "gateway":
                gateway.kill()
                await gateway.start()
            else:
                await connection.drop()
                await asyncio.sleep(rng.uniform(0.2, 1.0))
                await connection.listen()
            repeated = finished & {call.prompt for call in triton.calls[before:]}
            assert not repeated, f"completed videos were made again: {repeated}"
        assert len(finished) < TASKS, "all videos were completed before the last kill"
        async with asyncio.timeout(120):
            while await completed(gateway) != prompts:
                await asyncio.sleep(0.2)
            while {call.event["data"]["id"] for call in receiver.calls} != set(ids):
                await asyncio.sleep(0.2)
        repeated = finished & {call.prompt for call in triton.calls[before:]}
        assert not repeated, f"completed videos were made again: {repeated}"
        files = [file.name for file in (tmp_path / "state" / "files").iterdir() if "#" not in file.name]
        done = await gateway.tasks()
        assert sorted(files) == sorted(output["file"] for task in done for output in task["outputs"])
        assert len(files) == TASKS
        for id in rng.sample(ids, 5):
            assert (await gateway.http.get(f"/v1/videos/{id}/content")).content[4:8] == b"ftyp"
        # A kill in the milliseconds between the model's last response and the commit of the result repeats a task.
        ended = Counter(call.prompt for call in triton.calls if call.cancelled_at is None)
        twice = {prompt: times for prompt, times in ended.items() if times > 1}
        events = Counter(call.event["data"]["id"] for call in receiver.calls)
        sys.stdout.write(
            f"{kills}: {len(triton.calls)} calls began, {ended.total()} ended, twice {twice}, {events.total()} events\n"
        )
        assert set(ended) == prompts and len(triton.calls) > ended.total(), "no kill interrupted a video"
        assert len(twice) <= len(kills) * CONCURRENCY and all(times == 2 for times in twice.values())
        assert {call.event["type"] for call in receiver.calls} == {"video.completed"}
    except BaseException:
        sys.stdout.write(gateway.log_tail())
        raise
    finally:
        await gateway.close()
        await connection.drop()
        await triton.stop()
        await receiver.stop()
