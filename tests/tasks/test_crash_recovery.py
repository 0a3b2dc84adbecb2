"""A killed gateway loses no task, and does not repeat completed ones."""

import asyncio
import random
import sys
from collections import Counter
from pathlib import Path

from tests.fakes.scripted_model import DrawImages, ScriptedModel
from tests.fakes.triton import FakeTriton
from tests.tasks.gateway_processes import TaskGateway

TASKS, KILLS, CONCURRENCY = 200, 5, 8


async def test_gateway_killed_five_times_at_random_times(triton: FakeTriton, database: str, tmp_path: Path) -> None:
    triton.models["painter"] = ScriptedModel("painter", (DrawImages(3, pause=0.02),), is_image_model=True)
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    sys.stdout.write(f"seed {seed}\n")
    gateway = await TaskGateway(tmp_path / "state", triton.url, database, tasks_concurrency=CONCURRENCY).start()
    prompts = [f"image {i}" for i in range(TASKS)]
    try:
        ids = await asyncio.gather(*(gateway.submit(prompt) for prompt in prompts))
        assert len(set(ids)) == TASKS
        finished: set[str] = set()
        for _ in range(KILLS):
            await asyncio.sleep(rng.uniform(0.2, 1.0))
            before = len(triton.calls)
            finished = {task["request"]["prompt"] for task in await gateway.tasks() if task["state"] == "completed"}
            # The kill comes at a random moment of the running tasks.
            await asyncio.sleep(rng.uniform(0.0, 0.1))
            gateway.kill()
            await gateway.start()
            repeated = finished & {call.prompt for call in triton.calls[before:]}
            assert not repeated, f"completed tasks ran again: {repeated}"
        assert len(finished) < TASKS, "all tasks were completed before the last kill"
        async with asyncio.timeout(150):
            while {task["state"] for task in await gateway.tasks()} != {"completed"}:
                await asyncio.sleep(0.2)
        repeated = finished & {call.prompt for call in triton.calls[before:]}
        assert not repeated, f"completed tasks ran again: {repeated}"
        done = await gateway.tasks()
        assert sorted(task["request"]["prompt"] for task in done) == sorted(prompts)
        assert len({output["file"] for task in done for output in task["outputs"]}) == TASKS
        # A kill during a write leaves a temporary file of the file store, which is swept later. Its name has a "#",
        # unlike those of outputs.
        files = [file.name for file in (tmp_path / "state" / "files").iterdir() if "#" not in file.name]
        assert len(files) == TASKS
        ended = Counter(call.prompt for call in triton.calls if call.cancelled_at is None)
        repeated_calls = {prompt: times for prompt, times in ended.items() if times > 1}
        # A kill in the milliseconds between the last event of the model and the commit of the result repeats a task.
        # Only tasks that were running at a kill may be repeated.
        sys.stdout.write(f"{len(triton.calls)} calls began, {ended.total()} completed, repeated: {repeated_calls}\n")
        assert set(ended) == set(prompts)
        assert len(repeated_calls) <= KILLS * CONCURRENCY and all(times == 2 for times in repeated_calls.values())
    except BaseException:
        sys.stdout.write(gateway.log_tail())
        raise
    finally:
        await gateway.close()
