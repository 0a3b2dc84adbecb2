"""Calls without a response leave a server that falls silent, also while they are sent; calls with one go on."""

import asyncio

import pytest

from gateway.errors import ServerUnavailable
from gateway.models import discovery
from gateway.triton.client import CallState, ResponseStream, TritonClient
from gateway.triton.rpc.frames import FrameType, encode_frame
from gateway.triton.tensors import Tensor, bool_tensor, string_tensor
from tests.fakes.scripted_model import Pause, Say, ScriptedModel
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway

PARAMETERS: dict[str, str | None] = {"served_name": "llama-8b"}


def stream(
    triton: TritonClient, model: str, state: CallState, *more: Tensor, send_lock: asyncio.Lock | None = None
) -> ResponseStream:
    tensors = [string_tensor("text_input", "x"), bool_tensor("stream", True), *more]
    return triton.stream(model, tensors, request_id="r", timeout=30, send_lock=send_lock, state=state)


def read(responses: ResponseStream) -> "asyncio.Task[object]":
    return asyncio.ensure_future(anext(responses))


async def test_a_call_with_a_response_keeps_all_its_streams() -> None:
    fake = await FakeTriton([ScriptedModel("begun", (Say("a"), Pause())), ScriptedModel("hang", (Pause(),))]).start()
    triton = TritonClient(fake.url)
    begun, waiting = CallState("m"), CallState("m")
    streams = [stream(triton, "begun", begun), stream(triton, "hang", begun), stream(triton, "hang", waiting)]
    first, second, third = map(read, streams)
    await asyncio.wait_for(first, 5)
    await fake.call("hang", after=1)
    triton.give_up_unanswered({"other"})
    triton.give_up_unanswered({"m"})
    triton.give_up_unanswered({"m"})
    with pytest.raises(ServerUnavailable):
        await asyncio.wait_for(third, 5)
    assert not second.done() and triton.in_flight == 2
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    for responses in streams:
        await responses.aclose()
    assert triton.in_flight == 0 and not triton._streams
    await triton.close()
    await fake.stop()


async def test_a_call_is_given_up_while_it_is_sent() -> None:
    """The server opens no flow-control window for the upload, and the second stream waits for the first to be sent."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(encode_frame(FrameType.SETTINGS, 0, 0))
        while await reader.read(2**16):
            pass
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    triton = TritonClient(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    state, lock, image = CallState("m"), asyncio.Lock(), string_tensor("image", "x" * 2**20)
    reading = [read(stream(triton, "big", state, image, send_lock=lock)) for _ in range(2)]
    await asyncio.sleep(0.2)
    assert lock.locked() and not any(task.done() for task in reading)
    triton.give_up_unanswered({"m"})
    failures = await asyncio.wait_for(asyncio.gather(*reading, return_exceptions=True), 5)
    assert [type(failure) for failure in failures] == [ServerUnavailable] * 2
    assert triton.in_flight == 0 and not triton._streams and not lock.locked()
    await triton.close()
    server.close()


async def _chat(gateway: RunningGateway, model: str) -> tuple[int, str]:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    response = await gateway.http.post("/v1/chat/completions", json=body)
    return response.status_code, response.text


async def test_only_requests_whose_adapter_another_server_has_are_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "_GIVE_UP_SECONDS", 0.3)
    with_adapter = PARAMETERS | {"adapters": '["sql"]'}
    silent = await FakeTriton([ScriptedModel("llama", (Pause(),), parameters=with_adapter)]).start()
    llama = ScriptedModel("llama", (Say("good", "stop"),), parameters=PARAMETERS)
    good = await FakeTriton([llama, ScriptedModel("busy", (Pause(),))]).start()
    async with run_gateway(silent.url, good.url, discovery_interval=0.1) as gateway:
        # The server with the fewest requests is chosen: here the silent one, for both models.
        pending = [asyncio.create_task(_chat(gateway, "busy")) for _ in range(2)]
        await good.call("busy", after=1)
        pending.append(adapted := asyncio.create_task(_chat(gateway, "sql")))
        await silent.call("llama")
        moved = asyncio.create_task(_chat(gateway, "llama-8b"))
        await silent.call("llama", after=1)
        silent.frozen = True
        status, text = await asyncio.wait_for(moved, 5)
        assert status == 200 and "good" in text
        assert not adapted.done(), "no other server has the adapter"
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    await silent.stop()
    await good.stop()
