"""A scripted web server on loopback, and a loader that makes its own budgets."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from gateway.media.budget import Budget
from gateway.media.encoded_image import EncodedImage
from gateway.media.loader import Audio, AudioFormat, MediaLoader

StubResponse = Callable[[asyncio.StreamWriter], Awaitable[None]]


class StubSite:
    """Plain HTTP/1.1, one response a connection. `requests` are the headers of the requests.

    `num_open` connections are open now, and `most_open` were at a time.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.responses: dict[str, StubResponse] = {}
        self.num_open = self.most_open = 0
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

    def script(self, path: str, answer: StubResponse) -> str:
        self.responses[path] = answer
        return self.url(path)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.requests.append(head)
            await self.responses[head.split()[1]](writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.num_open -= 1
            writer.close()


class AutoBudgetLoader(MediaLoader):
    """Creates a budget for each reference that comes without one."""

    async def load_image(self, reference: str, *, budget: Budget | None = None, **options: Any) -> EncodedImage:
        with budget or self.new_budget("caller") as used_budget:
            return await super().load_image(reference, budget=used_budget, **options)

    async def load_document(self, reference: str, *, budget: Budget | None = None, **options: Any) -> str:
        with budget or self.new_budget("caller") as used_budget:
            return await super().load_document(reference, budget=used_budget, **options)

    async def load_audio(
        self, data_base64: str, declared_format: AudioFormat, *, budget: Budget | None = None, **options: Any
    ) -> Audio:
        with budget or self.new_budget("caller") as used_budget:
            return await super().load_audio(data_base64, declared_format, budget=used_budget, **options)

    def new_budget(self, caller: str = "caller") -> Budget:
        return super().new_budget(caller)
