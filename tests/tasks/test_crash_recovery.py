"""A gateway that is killed loses no task, and repeats none that had finished."""

import asyncio
import random
import sys
from collections import Counter
from pathlib import Path

from tests.fakes.scripted_model import DrawImages, ScriptedModel
from tests.fakes.triton import FakeTriton
from tests.tasks.gateway_processes import TaskGateway

TASKS, KILLS, AT_A_TIME = 200, 5, 8


async def test_killed_five_times_at_random(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    triton.models["painter"] = ScriptedModel("painter", (DrawImages(3, pause=0.02),), is_image_model=True)
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    sys.stdout.write(f"seed {seed}\n")
    gateway = await TaskGateway(tmp_path / "state", triton.url, database, tasks_concurrency=AT_A_TIME).start()
    prompts = [f"picture {i}" for i in range(TASKS)]
    try:
        ids = await asyncio.gather(*(gateway.submit(prompt) for prompt in prompts))
        assert len(set(ids)) == TASKS
        finished: set[str] = set()
        for _ in range(KILLS):
            await asyncio.sleep(chance.uniform(0.2, 1.0))
            before = len(triton.calls)
            finished = {task["request"]["prompt"] for task in await gateway.tasks() if task["state"] == "completed"}
            # The rest of what runs now may end any moment, the kill comes at any of them.
            await asyncio.sleep(chance.uniform(0.0, 0.1))
            gateway.kill()
            await gateway.start()
            repeated = finished & {call.prompt for call in triton.calls[before:]}
            assert not repeated, f"had finished, and was done again: {repeated}"
        assert len(finished) < TASKS, "all was over before the last kill"
        async with asyncio.timeout(150):
            while {task["state"] for task in await gateway.tasks()} != {"completed"}:
                await asyncio.sleep(0.2)
        repeated = finished & {call.prompt for call in triton.calls[before:]}
        assert not repeated, f"had finished, and was done again: {repeated}"
        done = await gateway.tasks()
        assert sorted(task["request"]["prompt"] for task in done) == sorted(prompts)
        assert len({output["file"] for task in done for output in task["outputs"]}) == TASKS
        # A kill in the middle of a write leaves a file of the store's own, which is swept later and is no file of
        # a task: those are named without a "#".
        files = [file.name for file in (tmp_path / "state" / "files").iterdir() if "#" not in file.name]
        assert len(files) == TASKS
        ended = Counter(call.prompt for call in triton.calls if call.cancelled_at is None)
        again = {prompt: times for prompt, times in ended.items() if times > 1}
        # Between the model's last word and the database's there are milliseconds; what was killed in them is not known
        # to be done. That can only be what was under way at a kill.
        sys.stdout.write(f"{len(triton.calls)} begun, {ended.total()} drawn to the end, twice: {again}\n")
        assert set(ended) == set(prompts)
        assert len(again) <= KILLS * AT_A_TIME and all(times == 2 for times in again.values())
    except BaseException:
        sys.stdout.write(gateway.log_tail())
        raise
    finally:
        await gateway.close()
