"""Models of NVIDIA's layouts and of the vLLM backend, unchanged, with requests of OpenAI's client."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.triton.disconnecting_client import DisconnectingClient
from tests.triton.foreign.scripted_requests import (
    ALL,
    BATCHERS,
    MOCKS,
    chat,
    complete_both_ways,
    last_inputs,
    refusal,
    script,
)
from tests.triton.text_client import TextClient
from tests.wire.gateway_server import RunningGateway, run_gateway
from tritonic.embedded import EmbeddedTriton

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]


async def test_models_are_listed(served: RunningGateway) -> None:
    models = (await served.http.get("/v1/models")).json()["data"]
    found = {model["id"]: model for model in models}
    assert sorted(found) == sorted([*ALL, *BATCHERS, *MOCKS, "bare", "llmapi_engine", "vllm_of_the_file"])
    assert found["org/served-by-vllm"]["owned_by"] == "org"
    # They have no build time, so `created` is the time of their discovery.
    assert all(time.time() - 900 < model["created"] <= time.time() for model in models)
    giving = {name for name, model in found.items() if model["permission"][0]["allow_logprobs"]}
    assert giving == {"org/served-by-vllm", "bare", "vllm_of_the_file"}


async def test_a_model_without_a_template_completes_only(served: RunningGateway, complete: TextClient) -> None:
    status, param, message = await refusal(served, chat("bare", "a"))
    assert (status, param) == (400, "model")
    assert "it can continue texts" in message
    completion = await complete({"model": "bare", "prompt": script("a", "b")})
    assert (completion.text, completion.finish_reason) == ("ab", "stop")


@pytest.mark.parametrize("model", [*ALL, *BATCHERS])
async def test_a_chat_whole_and_streamed(complete: TextClient, model: str) -> None:
    completion = await complete_both_ways(complete, chat(model, "Grüß", " Gott", "!", " 👋"))
    assert completion.text == "Grüß Gott! 👋"
    if "llmapi" in model:
        assert completion.finish_reason == "stop"
        assert not completion.usage
        return
    assert completion.usage["completion_tokens"] == (4 if "vllm" in model else len(completion.text.encode()))
    assert completion.usage["prompt_tokens"] == len(script("Grüß", " Gott", "!", " 👋"))
    assert completion.finish_reason == "stop"


@pytest.mark.parametrize("model", [*ALL, *BATCHERS])
async def test_truncated_completions_have_the_finish_reason_length(complete: TextClient, model: str) -> None:
    completion = await complete_both_ways(complete, chat(model, "a", "b", "c", "d", max_tokens=2))
    assert (completion.text, completion.finish_reason) == ("ab", "length")


@pytest.mark.parametrize("model", [*ALL, *BATCHERS])
async def test_a_completion_with_its_prompt(complete: TextClient, model: str) -> None:
    prompt = script("x", "y")
    completion = await complete_both_ways(complete, {"model": model, "prompt": prompt, "echo": True})
    assert completion.text == prompt + "xy"


@pytest.mark.parametrize("model", [*ALL[:3], *BATCHERS])
async def test_stop_strings_are_cut_and_never_shown(
    complete: TextClient, journal: Callable[[], list[dict[str, Any]]], model: str
) -> None:
    completion = await complete_both_ways(complete, chat(model, "one", " E", "N", "D", " two", stop=["END", "xyz"]))
    assert (completion.text, completion.finish_reason) == ("one ", "stop")
    if model in BATCHERS:
        words = last_inputs(journal(), "tensorrt_llm")["stop_words_list"]
        assert words["shape"] == [1, 2, 6]
        assert words["values"] == [*b"ENDxyz", 3, 6, -1, -1, -1, -1]


@pytest.mark.parametrize("model", BATCHERS)
async def test_the_gateway_applies_stop_strings_that_the_engine_ignores(complete: TextClient, model: str) -> None:
    body = chat(model, "one", " END", *["x"] * 500, script_={"deaf": True, "pause": 0.002}, stop="END", max_tokens=3000)
    completion = await complete({**body, "stream": True, "stream_options": {"include_usage": True}})
    assert (completion.text, completion.finish_reason) == ("one ", "stop")
    assert completion.usage["completion_tokens"] < 100


@pytest.mark.parametrize("say", [["ha", "ha", "!"], ["1", "10", "1", "0"], ["", "a", "", "b"], ["ha", "", ""]])
async def test_deltas_that_look_like_whole_texts(complete: TextClient, say: list[str]) -> None:
    completion = await complete_both_ways(complete, chat("llmapi_deltas", *say))
    assert completion.text == "".join(say)
    assert (await complete_both_ways(complete, chat("llmapi", *say))).text == "".join(say)


@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm_bls"])
async def test_characters_that_deltas_lose_are_in_whole_responses(complete: TextClient, model: str) -> None:
    """The steps detokenize each response by itself, so deltas lose split characters and leading spaces."""
    halves = {"bytes": True}
    assert (await complete(chat(model, "東京は日本の首都です。", script_=halves))).text == "東京は日本の首都です。"
    assert (await complete(chat(model, "aä", script_=halves, stream=True))).text == "a\ufffd\ufffd"
    words = ("\u2581It", "\u2581is", "\u2581so")
    assert (await complete(chat(model, *words))).text == "It is so"
    assert (await complete(chat(model, *words, stream=True))).text == "Itisso"


async def test_accumulated_tokens_keep_split_characters(complete: TextClient) -> None:
    completion = await complete_both_ways(
        complete, chat("accumulating_bls", "ä👋", "\u2581is", script_={"bytes": True})
    )
    assert completion.text == "ä👋 is"


async def test_whole_responses_are_requested_without_streaming(
    complete: TextClient, journal: Callable[[], list[dict[str, Any]]]
) -> None:
    for model, flag, engine in (("ensemble", "streaming", "tensorrt_llm"), ("llmapi", "streaming", "llmapi")):
        await complete(chat(model, "a", "b"))
        assert last_inputs(journal(), engine)[flag]["values"] == [False]
        await complete(chat(model, "a", "b", stream=True))
        assert last_inputs(journal(), engine)[flag]["values"] == [True]
    # The gateway must see deltas to stop an engine that gets no stop strings.
    await complete(chat("llmapi", "a", "b", stop="b"))
    assert last_inputs(journal(), "llmapi")["streaming"]["values"] == [True]
    await complete(chat("accumulating_bls", "a", "b"))
    assert last_inputs(journal(), "tensorrt_llm")["streaming"]["values"] == [True]


@pytest.mark.parametrize("model", [*ALL, *BATCHERS])
async def test_failures_before_and_after_the_first_delta(served: RunningGateway, model: str) -> None:
    pieces = [] if model == "accumulating_bls" else ["a", "b"]  # it hangs after a first delta, see below
    body = chat(model, *pieces, script_={"fail": "ValueError: The engine fell over."})
    status, _, message = await refusal(served, body)
    assert status == 502
    assert message.endswith("The engine fell over.")
    for word in ("Traceback", "File ", "Error: ", "Exception"):
        assert word not in message
    if "bls" in model:
        body = chat(model, script_={"fail": "The engine fell over."})
    with pytest.raises(openai.APIError, match="fell over"):
        async for _ in await served.client().chat.completions.create(**body, stream=True):
            pass


LONG = [
    "Prompt length (9000) exceeds maximum input length (8192). Set log level to info.",
    "tensorrt_llm.executor.utils.RequestError: `default_max_tokens` (-152) must be greater than 0",
    "The sum of prompt length (72417.0), query length (0) should not exceed max_num_tokens (69632)",
]


@pytest.mark.parametrize("model", [*ALL[:3], *BATCHERS])
async def test_prompts_that_are_too_long(served: RunningGateway, model: str) -> None:
    for long in LONG:
        response = await served.http.post("/v1/chat/completions", json=chat(model, script_={"fail": long}))
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (400, "context_length_exceeded"), long
        assert error["param"] == "messages"
        assert "RequestError" not in error["message"]
    body = {"model": model, "prompt": script(fail=LONG[0])}
    assert (await refusal(served, body))[:2] == (400, "prompt")


async def test_a_step_that_fails_after_its_first_response_hangs_tensorrt_llm_bls(
    foreign: tuple[EmbeddedTriton, Path],
) -> None:
    """Triton 2.51 does not deliver such a failure to it, so the gateway's timeout ends the request."""
    triton, repository = foreign
    models = repository.parent / "models.toml"
    async with run_gateway(
        triton.grpc_url, triton_secret=triton.secret, models_file=models, request_timeout=1.0
    ) as impatient:
        body = chat("tensorrt_llm_bls", "a", "b", script_={"fail": "The engine fell over."})
        stream = await impatient.client().chat.completions.create(**body, stream=True)
        with pytest.raises(openai.APIError, match="no response for 1 seconds"):
            async for _ in stream:
                pass
        assert (await refusal(impatient, body))[0] == 502


async def test_the_timeout_of_a_whole_response_grows_with_its_length(foreign: tuple[EmbeddedTriton, Path]) -> None:
    triton, repository = foreign
    models = repository.parent / "models.toml"
    async with run_gateway(
        triton.grpc_url, triton_secret=triton.secret, models_file=models, request_timeout=0.5
    ) as impatient:
        body = chat("ensemble", *"abcd", script_={"pause": 0.4})
        assert (await TextClient(impatient)({**body, "max_tokens": 8})).text == "abcd"
        body = chat("ensemble", "", "", "", "a", script_={"pause": 0.4}, max_tokens=1)
        assert (await refusal(impatient, body))[0] == 504


@pytest.mark.parametrize(("reason", "status"), [("timeout", 504), ("cancelled", 502)])
async def test_finish_reasons_that_are_failures(served: RunningGateway, reason: str, status: int) -> None:
    for model in ("llmapi", "llmapi_once"):
        assert (await refusal(served, chat(model, "a", script_={"reason": reason})))[0] == status


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("model", ["llmapi", "llmapi_once", "org/served-by-vllm", "ensemble"])
async def test_a_disconnect_reaches_the_engine(
    served: RunningGateway, journal: Callable[[], list[dict[str, Any]]], model: str, stream: bool
) -> None:
    before = journal()
    body = chat(model, *["tick "] * 2000, script_={"pause": 0.01}, stream=stream, max_tokens=3999)
    client = await DisconnectingClient.send(served, body)
    engine = {"ensemble": "tensorrt_llm", "org/served-by-vllm": "vllm_model"}.get(model, model)

    async def wait_for_event(event: str) -> None:
        async with asyncio.timeout(15):  # a script that ends first records no event
            while not any((line["model"], line["event"]) == (engine, event) for line in journal()[len(before) :]):
                await asyncio.sleep(0.05)

    await wait_for_event("received")
    if stream and model != "llmapi_once":
        await client.wait_for_text()
    client.disconnect()
    await wait_for_event("cancelled")


async def test_max_tokens_is_the_rest_of_the_engines_length(
    served: RunningGateway, complete: TextClient, journal: Callable[[], list[dict[str, Any]]]
) -> None:
    """TensorRT engines behind llmapi refuse requests whose prompt and max_tokens exceed their length together."""
    for stream in (True, False):
        completion = await complete(chat("llmapi_engine", "a", "b", stream=stream))
        assert (completion.text, completion.finish_reason) == ("ab", "stop")
        left = 1000 - len(script("a", "b"))
        assert last_inputs(journal(), "llmapi_engine")["sampling_param_max_tokens"]["values"] == [left]
    assert (await refusal(served, chat("llmapi_engine", "a", max_tokens=999)))[:2] == (400, "max_tokens")
    assert (await refusal(served, chat("llmapi_engine", "a" * 1000)))[:2] == (400, "messages")


@pytest.mark.parametrize("model", MOCKS)
async def test_models_with_few_tensors(
    served: RunningGateway, complete: TextClient, journal: Callable[[], list[dict[str, Any]]], model: str
) -> None:
    for stream in (True, False):
        body = {"model": model, "prompt": script("He", "llo", " there"), "stream": stream}
        completed = await complete(body)
        assert (completed.text, completed.finish_reason) == ("Hello there", "stop")
        if model != "counting_mock":  # it leaves it to the model, which is a script
            cut = await complete({**body, "max_tokens": 2})
            assert (cut.text, cut.finish_reason) == ("Hello", "length")
        if model != "barest_vllm":
            stopped = await complete({**body, "stop": " th"})
            assert (stopped.text, stopped.finish_reason) == ("Hello", "stop")
        assert last_inputs(journal(), model)["text_input"]["shape"] == [1, 1]
    if model != "counting_mock":
        completion = await complete_both_ways(complete, chat(model, "He", "llo"))
        assert (completion.text, completion.finish_reason, completion.usage or None) == ("Hello", "stop", None)
        assert (await refusal(served, chat(model, "a", temperature=0.5)))[:2] == (400, "temperature")
        assert (await refusal(served, chat(model, "a", logprobs=True)))[:2] == (400, "logprobs")


async def test_the_official_client(served: RunningGateway) -> None:
    client = served.client()
    for model in (*ALL, *BATCHERS):
        body = chat(model, "Hel", "lo")
        answer = await client.chat.completions.create(**body)
        assert answer.choices[0].message.content == "Hello"
        assert (answer.usage is None) == ("llmapi" in model)
        stream = await client.chat.completions.create(**body, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]) == "Hello"
        completion = await client.completions.create(model=model, prompt=script("Hel", "lo"))
        assert completion.choices[0].text == "Hello"
