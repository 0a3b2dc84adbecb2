"""The answers of a chat with a model that draws, as its pictures come."""

from collections.abc import AsyncGenerator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from gateway.dialects.vocabulary import chat_pictures
from gateway.files.files import Files
from gateway.operations.generate_image import GenerateImage, Image, Progress
from gateway.operations.text import Delta, Finish
from gateway.settings import Settings


class Drawing:
    """A catalog whose model has room for one picture at a time."""

    async def run(self, *_: Any) -> AsyncGenerator[Any]:
        for event in (Progress(0.5), Image(0, b"one", 1), Progress(0.75), Progress(1.0), Image(1, b"two", 2)):
            yield event


async def test_nothing_is_added_to_an_answer_that_is_done(tmp_path: Path) -> None:
    settings = Settings(state=tmp_path, public_url="http://here")
    state = SimpleNamespace(settings=settings, files=Files(settings), media=None)
    request: Any = SimpleNamespace(app=SimpleNamespace(state=state), state=SimpleNamespace(trace=None))
    catalog: Any = Drawing()
    asked = GenerateImage(model="shapes", prompt="x", n=2)
    answers: dict[int, str] = {}
    done = set()
    async for event in chat_pictures.events(catalog, catalog, asked, request, progress=True):
        assert event.index not in done, f"{event} comes after the end"
        if isinstance(event, Delta):
            answers[event.index] = answers.get(event.index, "") + event.text
        elif isinstance(event, Finish):
            done.add(event.index)
    assert answers[0].startswith("> Progress: 50.0%\n\n![image](http://here/files/") and answers[0].endswith(")")
    assert answers[1].startswith("![image](http://here/files/") and done == {0, 1}
