"""A web server on loopback that misbehaves as it is told, and media that are asked without ceremony."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.media.allowance import Allowance
from gateway.media.media import Media, Sound, SoundForm
from gateway.media.pictures import Picture

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
