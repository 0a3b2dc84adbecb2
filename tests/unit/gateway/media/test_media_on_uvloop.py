"""Media on `uvloop`, the production event loop. The other tests run on asyncio's own."""

import asyncio
from pathlib import Path

import pytest
import uvloop

from gateway.errors import InvalidRequest
from gateway.settings import Settings
from tests.unit.gateway.media.media_samples import data_url, image_bytes, pdf_bytes
from tests.unit.gateway.media.media_stubs import AutoBudgetLoader, StubSite


def test_files_are_fetched_and_read() -> None:
    async def all_of_it() -> None:
        site = StubSite()
        server = await asyncio.start_server(site.serve, "127.0.0.1", 0)
        site.port = server.sockets[0].getsockname()[1]
        media = AutoBudgetLoader(Settings(media_allow_private=True, document_timeout=1.0))
        large = image_bytes(size=(1500, 1500))
        assert len(large) > 5_000_000
        for reference in (data_url(large), site.page("/a", large), site.page("/b", large, "Content-Type: x/y")):
            assert (await media.load_image(reference, param="p")).data == large
        assert await media.load_document(data_url(pdf_bytes("hello")), param="p") == "hello"
        assert await media.load_document("data:,%41" + "%42" * 500_000, param="p") == "A" + "B" * 500_000
        endless = ("<html>" + "<p>words <b>more</b></p>" * 70_000).encode()
        with pytest.raises(InvalidRequest, match="within 1 seconds"):
            media._document_pool._wall_timeout = 20.0
            await media.load_document(data_url(endless), param="p")

        async def pour(out: asyncio.StreamWriter) -> None:
            while not out.is_closing():
                out.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)
                await out.drain()

        with pytest.raises(InvalidRequest, match="valid HTTP response"):
            await media.load_image(site.script("/c", pour), param="p")
        process = media._fork_server._process
        assert process is not None
        await media.close()
        assert process.returncode is not None and not Path(f"/proc/{process.pid}").exists()
        server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(all_of_it())
