"""Tasks store outputs other than images."""

from pathlib import Path

import pytest

from gateway.errors import GatewayError
from gateway.operations.transcribe import Transcribe
from gateway.tasks.task import TaskOutput
from tests.fakes.scripted_model import DrawImages, Fail, Say, ScriptedModel
from tests.fakes.triton import FakeTriton
from tests.tasks.harness import OWNER, belongs_here, image_request, task_harness

SPEECH = ScriptedModel("speech", (Say("What is"), Say(" the time?", "stop")), is_transcription_model=True)
BROKEN = ScriptedModel("mute", (Say("What"), Fail("[engine_failed] The engine stopped.")), is_transcription_model=True)
AUDIO = bytes(4 * 1600)
HALF = ScriptedModel("half", (DrawImages(1, num_missing=1),), is_image_model=True)


async def belongs_elsewhere() -> bool:
    return False


async def test_a_transcription_is_stored_as_text(database: str, tmp_path: Path) -> None:
    triton = await FakeTriton([SPEECH]).start()
    try:
        async with task_harness(triton.url, tmp_path, database) as home:
            task = await home.tasks.submit(Transcribe(model="speech", audio=AUDIO), OWNER)
            assert task.kind == "transcribe" and set(task.request["audio"]) == {"file"}
            done = await home.wait_finished(task.id)
            assert (done.state, done.error, done.progress) == ("completed", None, 100)
            (output,) = done.outputs
            assert output == TaskOutput(0, output.file, "text/plain; charset=utf-8", {})
            assert output.file.endswith(".txt") and await home.files.read(output.file) == b"What is the time?"
            assert (await home.files.head(output.file)).content_type == "text/plain; charset=utf-8"
            assert triton.calls[-1].tensors["audio"] == [0.0] * 1600
            # A repeated run finds the stored output.
            executor = (await home.tasks._get_runtime())._worker._executor
            again = await executor.execute(done.id, done.kind, dict(done.request), lambda fraction: None, belongs_here)
            assert again == [output] and len(triton.calls) == 1
    finally:
        await triton.stop()


async def test_a_transcription_that_fails_stores_nothing(tmp_path: Path) -> None:
    triton = await FakeTriton([BROKEN]).start()
    try:
        async with task_harness(triton.url, tmp_path) as home:
            task = await home.tasks.submit(Transcribe(model="mute", audio=AUDIO), OWNER)
            done = await home.wait_finished(task.id)
            assert (done.state, done.outputs) == ("failed", ())
            assert done.error is not None and done.error.code == "model_failed"
    finally:
        await triton.stop()


async def test_a_failed_run_deletes_its_outputs_unless_another_gateway_has_the_task(tmp_path: Path) -> None:
    triton = await FakeTriton([HALF]).start()
    try:
        async with task_harness(triton.url, tmp_path) as home:
            task = await home.tasks.submit(image_request(model="half", n=2), OWNER)
            done = await home.wait_finished(task.id)
            assert done.state == "failed"
            assert await home.files.find(f"{task.id}/0", "image/png") is None, "it was stored and deleted"
            executor = (await home.tasks._get_runtime())._worker._executor
            with pytest.raises(GatewayError):
                await executor.execute(done.id, done.kind, dict(done.request), lambda fraction: None, belongs_elsewhere)
            assert await home.files.find(f"{task.id}/0", "image/png") is not None
    finally:
        await triton.stop()
