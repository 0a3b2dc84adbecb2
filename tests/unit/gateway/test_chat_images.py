"""The answers of a chat with a model that draws, as its pictures come."""

import asyncio
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.dialects.openai.wire import image_chat
from gateway.dialects.openai.wire.chat import CreateChatCompletionRequest
from gateway.files.file_store import FileStore
from gateway.media.loader import MediaLoader
from gateway.observability.telemetry import Metrics, Trace
from gateway.operations.generate_image import GenerateImage, Image, Progress
from gateway.operations.text import Delta, Finish
from gateway.settings import Settings


class Drawing:
    """A catalog whose model has room for one picture at a time."""

    async def run(self, *_: Any) -> AsyncGenerator[Any]:
        for event in (Progress(0.5), Image(0, b"one", 1), Progress(0.75), Progress(1.0), Image(1, b"two", 2)):
            yield event


def requested(tmp_path: Path) -> Any:
    """A request whose client stays connected."""

    async def waits() -> Any:
        await asyncio.Event().wait()

    settings = Settings(state=tmp_path, public_url="http://here")
    state = SimpleNamespace(settings=settings, files=FileStore(settings), media=MediaLoader(settings))
    return SimpleNamespace(
        app=SimpleNamespace(state=state), state=SimpleNamespace(trace=Trace(Metrics(), "r")), receive=waits
    )


async def test_a_finished_answer_gets_no_more_text(tmp_path: Path) -> None:
    request = requested(tmp_path)
    catalog: Any = Drawing()
    asked = GenerateImage(model="shapes", prompt="x", n=2)
    answers: dict[int, str] = {}
    done = set()
    async for event in image_chat.run(catalog, catalog, asked, request, progress=True):
        assert event.index not in done, f"{event} comes after the end"
        if isinstance(event, Delta):
            answers[event.index] = answers.get(event.index, "") + event.text
        elif isinstance(event, Finish):
            done.add(event.index)
    assert answers[0].startswith("> Progress: 50.0%\n\n![image](http://here/files/") and answers[0].endswith(")")
    assert answers[1].startswith("![image](http://here/files/") and done == {0, 1}


@pytest.mark.parametrize(
    "text",
    [
        "![image](" * 200_000,
        "![image](" + "a" * 1_500_000,
        "![image](http://here/files/a?x=1)" * 50_000,
        "![" * 500_000,
        "![image](http://here/files/a?" + "a=b&" * 400_000 + ")",
    ],
    ids=["open", "long", "many", "marks", "query"],
)
async def test_earlier_messages_are_scanned_in_linear_time(tmp_path: Path, text: str) -> None:
    """Everybody else waits meanwhile."""
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": text}] * 4
    body = CreateChatCompletionRequest.model_validate(
        {"model": "shapes", "messages": [*messages, {"role": "user", "content": "a blue one"}]}
    )
    model: Any = SimpleNamespace(name="shapes", operations={"generate_image", "edit_image"})
    began = time.thread_time()
    request = await image_chat.parse_request(body, model, requested(tmp_path))
    assert type(request) is GenerateImage and time.thread_time() - began < 2
