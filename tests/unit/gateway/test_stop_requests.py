"""Stop requests to engines that closing the stream does not reach."""

from contextlib import aclosing

import pytest

from gateway.triton import client as gateway_triton
from gateway.triton.client import StopRequest, TritonClient
from gateway.triton.tensors import bool_tensor, string_tensor
from tests.fakes.scripted_model import Pause, Say, ScriptedModel
from tests.fakes.triton import FakeTriton


async def test_an_unanswered_stop_request_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_triton, "_STOP_TIMEOUT_SECONDS", 0.1)
    fake = await FakeTriton([ScriptedModel("endless", (Say("a"), Pause())), ScriptedModel("core", (Pause(),))]).start()
    triton = TritonClient(fake.url)
    try:
        tensors = [string_tensor("text_input", "x"), bool_tensor("stream", True)]
        stop = StopRequest("core", (string_tensor("text_input", "stop"),))
        async with aclosing(triton.stream("endless", tensors, request_id="r", timeout=5, stop=stop)) as responses:
            async for _ in responses:
                break
        stopping = await fake.cancelled_call("core")
        assert (stopping.id, stopping.prompt) == ("r", "stop")
    finally:
        await triton.close()
        await fake.stop()
