"""The scripted Triton, as the official Triton client sees it."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio
from tritonclient.grpc import InferInput
from tritonclient.grpc._utils import _get_inference_request
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from tests.fakes.scripted_model import Close, Echo, Fail, Pause, Say, ScriptedModel
from tests.fakes.tcp_proxy import TcpProxy
from tests.fakes.triton import FakeTriton

MODELS = [
    ScriptedModel("hello", parameters={"served_name": "org/hello", "precision": None}),
    ScriptedModel("pair", (Say(("a", "1")), Say(("b", "2"), ("", "stop")), Say(("c", ""), ("length", "")))),
    ScriptedModel("echo", (Echo(3),)),
    ScriptedModel("empty-final", sends_empty_final=True),
    ScriptedModel("hang", (Pause(),)),
    ScriptedModel("early", (Fail("[overloaded] Full.", grpc.StatusCode.UNAVAILABLE),)),
    ScriptedModel("late", (Say("a"), Fail("[engine_failed] Broken."))),
    ScriptedModel("close", (Say("a"), Close())),
    ScriptedModel("vision", is_described=False),
]


@pytest_asyncio.fixture
async def triton() -> AsyncIterator[FakeTriton]:
    fake = await FakeTriton(MODELS).start()
    yield fake
    await fake.stop()


@pytest_asyncio.fixture
async def client(triton: FakeTriton) -> AsyncIterator[InferenceServerClient]:
    async with InferenceServerClient(triton.url) as client:
        yield client


def inputs(prompt: str, sampling: dict | None = None, **flags: bool) -> list[InferInput]:
    def tensor(name: str, kind: str, value: Any, dtype: Any) -> InferInput:
        made = InferInput(name, [1], kind)
        made.set_data_from_numpy(np.array([value], dtype=dtype))
        return made

    tensors = [tensor("text_input", "BYTES", prompt.encode(), object)]
    if sampling is not None:
        tensors.append(tensor("sampling_parameters", "BYTES", json.dumps(sampling).encode(), object))
    return tensors + [tensor(name, "BOOL", value, bool) for name, value in flags.items()]


async def infer(client, model, tensors):
    async def requests():
        yield {"model_name": model, "inputs": tensors, "request_id": "r1"}

    return [answer async for answer in client.stream_infer(requests())]


async def test_server_and_model_metadata(client, triton):
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("hello")
    index = await client.get_model_repository_index(as_json=True)
    assert {model["name"] for model in index["models"]} == {model.name for model in MODELS}
    config = (await client.get_model_config("hello")).config
    assert config.parameters["served_name"].string_value == "org/hello"
    assert "precision" not in config.parameters
    assert config.model_transaction_policy.decoupled
    metadata = await client.get_model_metadata("vision")
    assert [(t.name, t.datatype, list(t.shape)) for t in metadata.inputs] == [("pixels", "FP32", [3, 224, 224])]
    with pytest.raises(InferenceServerException, match="unknown model"):
        await client.get_model_config("nothing")


async def test_models_load_and_unload(client, triton):
    await client.unload_model("hello")
    assert not await client.is_model_ready("hello")
    (_, error), *_ = await infer(client, "hello", inputs("x"))
    assert "unknown model" in str(error)
    await client.load_model("hello")
    assert await client.is_model_ready("hello")


async def test_streams_deltas_and_flags_the_last(client, triton):
    answers = await infer(
        client,
        "pair",
        inputs("hi", {"n": 2}, stream=True, return_finish_reason=True, return_num_output_tokens=True),
    )
    assert [list(answer.as_numpy("text_output")) for answer, _ in answers] == [[b"a", b"1"], [b"b", b"2"], [b"c", b""]]
    assert [list(answer.as_numpy("finish_reason")) for answer, _ in answers] == [
        [b"None", b"None"],
        [b"None", b"stop"],
        [b"length", b"None"],
    ]
    flags = [answer.get_response().parameters["triton_final_response"].bool_param for answer, _ in answers]
    assert flags == [False, False, True]
    assert answers[0][0].as_numpy("num_input_tokens") is None
    assert answers[0][0].as_numpy("num_output_tokens").tolist() == [1]
    assert (triton.calls[-1].prompt, triton.calls[-1].sampling, triton.calls[-1].id) == ("hi", {"n": 2}, "r1")


async def test_whole_response_includes_the_prompt_unless_excluded(client, triton):
    ((answer, _),) = await infer(client, "echo", inputs("abcdefg", return_num_output_tokens=True))
    assert list(answer.as_numpy("text_output")) == [b"abcdefgabcdefg"]
    assert answer.as_numpy("num_output_tokens").tolist() == [3]
    ((answer, _),) = await infer(client, "echo", inputs("abcdefg", exclude_input_in_output=True))
    assert list(answer.as_numpy("text_output")) == [b"abcdefg"]


async def test_an_empty_final_response_is_sent_on_request(client, triton):
    assert len(await infer(client, "empty-final", inputs("x", stream=True))) == 3
    request = _get_inference_request(
        "empty-final", inputs("x", stream=True), "", "", None, 0, False, False, 0, None, None
    )
    request.parameters["triton_enable_empty_final_response"].bool_param = True
    answers = [answer.infer_response async for answer in client._client_stub.ModelStreamInfer(iter([request]))]
    assert [len(answer.outputs) for answer in answers] == [1, 1, 1, 0]
    assert [answer.parameters["triton_final_response"].bool_param for answer in answers] == [False] * 3 + [True]


async def test_refuses_what_triton_and_the_backend_refuse(client, triton):
    (_, error), *_ = await infer(client, "hello", inputs("x", {"tempo": 1}, stream=True))
    assert str(error) == "[unsupported_option:sampling_parameters] There is no option tempo."
    (_, error), *_ = await infer(client, "hello", inputs("x", flood=True))
    assert "unexpected inference input 'flood'" in str(error)


async def test_errors_in_the_stream_or_as_true_statuses(client, triton):
    _, (_, error) = await infer(client, "late", inputs("x", stream=True))
    assert str(error) == "[engine_failed] Broken."
    assert len(await infer(client, "close", inputs("x", stream=True))) == 1

    async def requests():
        yield {"model_name": "early", "inputs": inputs("x")}

    with pytest.raises(grpc.aio.AioRpcError) as failure:
        async for _ in client.stream_infer(requests(), headers={"triton_grpc_error": "true"}):
            pass
    assert (failure.value.code(), failure.value.details()) == (grpc.StatusCode.UNAVAILABLE, "[overloaded] Full.")


async def test_counts_cancellations(client, triton):
    task = asyncio.ensure_future(infer(client, "hang", inputs("x", stream=True)))
    call = await triton.call("hang")
    assert triton.active == 1
    await asyncio.sleep(0.05)
    started = time.monotonic()
    task.cancel()
    await asyncio.wait_for(call.ended.wait(), 1)
    assert call.cancelled_at - started < 0.1
    assert triton.active == 0


async def test_a_cut_connection_is_a_connection_error(triton):
    cable = await TcpProxy(triton.url).listen()
    async with InferenceServerClient(cable.url) as client:
        task = asyncio.ensure_future(infer(client, "hang", inputs("x", stream=True)))
        call = await triton.call("hang")
        await cable.drop()
        with pytest.raises(grpc.aio.AioRpcError) as lost:
            await task
        assert lost.value.code() == grpc.StatusCode.UNAVAILABLE
        await asyncio.wait_for(call.ended.wait(), 1)
        await cable.listen()
        async with InferenceServerClient(cable.url) as again:
            assert await again.is_server_live()
    await cable.drop()
