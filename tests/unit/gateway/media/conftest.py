"""A web server on loopback that misbehaves as it is told."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest

from gateway.media.allowance import Allowance
from gateway.media.media import Media, Sound, SoundForm
from gateway.media.pictures import Picture
from gateway.settings import Settings

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Site:
    """Plain HTTP/1.1, one answer a connection. `asked` holds the heads of the requests that came."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, Answer] = {}
        self.open = 0
        self.port = 0

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def page(self, path: str, body: bytes, *headers: str, status: str = "200 OK") -> str:
        async def answer(out: asyncio.StreamWriter) -> None:
            lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
            out.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
            await out.drain()

        return self.script(path, answer)

    def redirect(self, path: str, to: str) -> str:
        return self.page(path, b"", f"Location: {to}", status="302 Found")

    def script(self, path: str, answer: Answer) -> str:
        self.answers[path] = answer
        return self.url(path)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked.append(head)
            await self.answers[head.split()[1]](writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()


@pytest.fixture
async def site() -> AsyncGenerator[Site]:
    site = Site()
    server = await asyncio.start_server(site.serve, "127.0.0.1", 0)
    site.port = server.sockets[0].getsockname()[1]
    yield site
    server.close()


class Asked(Media):
    """With an allowance of its own for each reference that comes without one."""

    async def picture(self, reference: str, *, allowance: Allowance | None = None, **more: Any) -> Picture:
        with allowance or self.allowance("caller") as taken:
            return await super().picture(reference, allowance=taken, **more)

    async def document(self, reference: str, *, allowance: Allowance | None = None, **more: Any) -> str:
        with allowance or self.allowance("caller") as taken:
            return await super().document(reference, allowance=taken, **more)

    async def sound(
        self, data_base64: str, form: SoundForm, *, allowance: Allowance | None = None, **more: Any
    ) -> Sound:
        with allowance or self.allowance("caller") as taken:
            return await super().sound(data_base64, form, allowance=taken, **more)

    def allowance(self, caller: str = "caller") -> Allowance:
        return super().allowance(caller)


@pytest.fixture
async def make_media(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Callable[..., Media]]:
    made = []

    def make(resolve: Any = None, **settings: Any) -> Media:
        extra = {} if resolve is None else {"resolve": resolve}
        made.append(Asked(Settings(**{"media_timeout": 5.0, **settings}), **extra))
        return made[-1]

    yield make
    for media in made:
        await media.close()


@pytest.fixture
def media(make_media: Callable[..., Media]) -> Media:
    """One that may call loopback."""
    return make_media(media_allow_private=True)
