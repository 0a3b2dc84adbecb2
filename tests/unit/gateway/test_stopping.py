"""How a request is stopped in a model that closing its stream does not reach."""

from contextlib import aclosing

import pytest

from gateway import triton as gateway_triton
from gateway.tensors import boolean, text
from gateway.triton import Stop, Triton
from tests.fakes.script import Model, Pause, Say
from tests.fakes.triton import FakeTriton


async def test_a_stop_that_is_never_answered_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_triton, "_STOP_SECONDS", 0.1)
    fake = await FakeTriton([Model("endless", (Say("a"), Pause())), Model("core", (Pause(),))]).start()
    triton = Triton(fake.url)
    try:
        asked = [text("text_input", "x"), boolean("stream", True)]
        stop = Stop("core", (text("text_input", "stop"),))
        async with aclosing(triton.stream("endless", asked, request_id="r", timeout=5, stop=stop)) as responses:
            async for _ in responses:
                break
        stopping = await fake.gives_up("core", seconds=2)
        assert (stopping.id, stopping.prompt) == ("r", "stop")
    finally:
        await triton.close()
        await fake.stop()
