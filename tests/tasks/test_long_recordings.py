"""Recordings of an hour: memory that does not grow with them, and tasks that outlive a killed gateway."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from tests.fakes.scripted_model import Listen, ScriptedModel
from tests.fakes.sound_files import heard, sound_file
from tests.fakes.triton import FakeTriton
from tests.tasks.gateway_processes import TaskGateway

UTTERANCES = tuple(part for i in range(60) for part in ((0.4, 0.5 + i % 5), (0.0, 0.5)))
"""Three minutes and a half."""
PATH = "/tritonic/v1/audio/transcriptions"


@pytest.fixture
async def listener() -> AsyncIterator[FakeTriton]:
    triton = await FakeTriton([ScriptedModel("ear", (Listen(),), is_transcription_model=True)]).start()
    yield triton
    await triton.stop()


async def transcribe(gateway: TaskGateway, recording: bytes) -> tuple[str, int]:
    """Stream a transcription. Return the text, and the most memory of the gateway meanwhile, in bytes."""
    assert gateway._process is not None
    process, most = psutil.Process(gateway._process.pid), 0
    text = ""
    form: dict[str, Any] = {"data": {"model": "ear", "stream": "true"}, "files": {"file": ("a.flac", recording)}}
    async with gateway.http.stream("POST", PATH, **form, timeout=120) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                most = max(most, process.memory_info().rss)
                event = orjson.loads(line.removeprefix("data: "))
                text += event.get("delta", "")
    assert event["type"] == "transcript.text.done" and event["text"] == text
    return text, most


async def test_an_hour_takes_no_more_memory_than_minutes(listener: FakeTriton, tmp_path: Path) -> None:
    hour = 3600 // 210 + 1
    short = await asyncio.to_thread(sound_file, "flac", "flac", UTTERANCES, repeat=2)
    long = await asyncio.to_thread(sound_file, "flac", "flac", UTTERANCES, repeat=hour)
    gateway = await TaskGateway(tmp_path / "state", listener.url, f"sqlite:///{tmp_path}/tasks.sqlite").start()
    try:
        await transcribe(gateway, short)
        text, minutes = await transcribe(gateway, short)
        assert text == " ".join([heard(UTTERANCES)] * 2)
        text, whole = await transcribe(gateway, long)
        assert text == " ".join([heard(UTTERANCES)] * hour)
        sys.stdout.write(f"{minutes} bytes with minutes, {whole} with an hour\n")
        # An hour of samples is 230 MB, and of the file some 100.
        assert whole - minutes < 30_000_000, (minutes, whole)
        assert list((tmp_path / "state" / "uploads").iterdir()) == []
    finally:
        await gateway.close()


async def test_a_killed_gateway_transcribes_again_from_the_file(listener: FakeTriton, tmp_path: Path) -> None:
    listener.models["ear"] = ScriptedModel("ear", (Listen(pause=0.01),), is_transcription_model=True)
    recording = await asyncio.to_thread(sound_file, "flac", "flac", UTTERANCES, repeat=3)
    gateway = await TaskGateway(tmp_path / "state", listener.url, f"sqlite:///{tmp_path}/tasks.sqlite").start()
    try:
        form: dict[str, Any] = {
            "data": {"model": "ear", "async": "true", "response_format": "srt"},
            "files": {"file": ("a.flac", recording)},
        }
        async with asyncio.timeout(90):
            while (submitted := await gateway.http.post(PATH, **form, timeout=60)).status_code == 503:
                await asyncio.sleep(0.2)
        address = f"/tritonic/v1/audio/tasks/{submitted.json()['id']}"
        progress: list[int] = []

        async def until(check: Any) -> Any:
            async with asyncio.timeout(90):
                while True:
                    task = (await gateway.http.get(address, params={"detail": "true"})).json()
                    progress.append(task["detail"]["progress"])
                    if check(task):
                        return task
                    await asyncio.sleep(0.05)

        # The second piece is being read.
        await until(lambda task: 0 < task["detail"]["progress"] < 100)
        before = len(listener.calls)
        gateway.kill()
        await gateway.start()
        done = await until(lambda task: task["status"] not in ("queued", "in_progress"))
        assert done["status"] == "completed", done
        assert len(listener.calls) > before and progress[-1] == 100
        (output,) = done["detail"]["data"]
        subtitles = (await gateway.http.get(output["url"])).text
        assert [line for line in subtitles.split("\n") if line.startswith("u")] == (heard(UTTERANCES).split() * 3)
        # The recording and one transcript.
        files = [file.suffix for file in (tmp_path / "state" / "files").iterdir() if "#" not in file.name]
        assert sorted(files) == [".bin", ".srt"]
    finally:
        await gateway.close()
