"""Models of NVIDIA's layouts and of the vLLM backend, unchanged, asked as OpenAI's client asks."""

import asyncio
from collections.abc import Callable
from typing import Any

import openai
import pytest

from tests.triton.asking import Ask
from tests.triton.calling import Caller
from tests.triton.foreign.asking import ALL, BATCHERS, asked, both, chat, refusal, script
from tests.wire.serving import Gateway

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]


async def test_what_is_offered(served: Gateway) -> None:
    models = (await served.http.get("/v1/models")).json()["data"]
    assert sorted(model["id"] for model in models if "id" in model) == sorted(
        [*ALL, *BATCHERS, "bare", "vllm_of_the_file"]
    )
    (renamed,) = (model for model in models if model.get("id") == "org/served-by-vllm")
    assert renamed["owned_by"] == "org"


async def test_a_model_without_a_template_completes_only(served: Gateway, ask: Ask) -> None:
    status, param, message = await refusal(served, chat("bare", "a"))
    assert (status, param) == (400, "model")
    assert "it can continue texts" in message
    said = await ask({"model": "bare", "prompt": script("a", "b")})
    assert (said.text, said.reason) == ("ab", "stop")


@pytest.mark.parametrize("model", [*ALL, *BATCHERS])
async def test_a_chat_whole_and_streamed(ask: Ask, model: str) -> None:
    said = await both(ask, chat(model, "Grüß", " Gott", "!", " 👋"))
    assert said.text == "Grüß Gott! 👋"
    if "llmapi" in model:
        assert said.reason == "stop"
        assert not said.usage
        return
    assert said.usage["completion_tokens"] == (4 if "vllm" in model else len(said.text.encode()))
    assert said.usage["prompt_tokens"] == len(script("Grüß", " Gott", "!", " 👋"))
    # accumulating_bls has no known context, so that nobody knows whether the engine had no more room.
    assert said.reason == (None if model == "accumulating_bls" else "stop")


@pytest.mark.parametrize("model", [*ALL, *BATCHERS])
async def test_answers_that_are_cut_off_say_so(ask: Ask, model: str) -> None:
    said = await both(ask, chat(model, "a", "b", "c", "d", max_tokens=2))
    assert (said.text, said.reason) == ("ab", "length")


@pytest.mark.parametrize("model", [*ALL, *BATCHERS])
async def test_a_completion_with_its_prompt(ask: Ask, model: str) -> None:
    prompt = script("x", "y")
    said = await both(ask, {"model": model, "prompt": prompt, "echo": True})
    assert said.text == prompt + "xy"


@pytest.mark.parametrize("model", [*ALL[:3], *BATCHERS])
async def test_stop_strings_are_cut_and_never_shown(
    ask: Ask, journal: Callable[[], list[dict[str, Any]]], model: str
) -> None:
    said = await both(ask, chat(model, "one", " E", "N", "D", " two", stop=["END", "xyz"]))
    assert (said.text, said.reason) == ("one ", "stop")
    if model in BATCHERS:
        words = asked(journal(), "tensorrt_llm")["stop_words_list"]
        assert words["shape"] == [1, 2, 6]
        assert words["values"] == [*b"ENDxyz", 3, 6, -1, -1, -1, -1]


@pytest.mark.parametrize("model", BATCHERS)
async def test_a_stop_string_that_the_engine_overhears(ask: Ask, model: str) -> None:
    body = chat(model, "one", " END", *["x"] * 500, script_={"deaf": True, "pause": 0.002}, stop="END", max_tokens=3000)
    said = await ask({**body, "stream": True, "stream_options": {"include_usage": True}})
    assert (said.text, said.reason) == ("one ", "stop")
    assert said.usage["completion_tokens"] < 100


@pytest.mark.parametrize("say", [["ha", "ha", "!"], ["1", "10", "1", "0"], ["", "a", "", "b"], ["ha", "", ""]])
async def test_added_texts_that_look_like_whole_ones(ask: Ask, say: list[str]) -> None:
    said = await both(ask, chat("llmapi_deltas", *say))
    assert said.text == "".join(say)
    assert (await both(ask, chat("llmapi", *say))).text == "".join(say)


async def test_half_characters(ask: Ask) -> None:
    """Only whoever sees all tokens can put a character together: the ensemble makes each text by itself."""
    halves = {"bytes": True}
    assert (await ask(chat("accumulating_bls", "ä👋", script_=halves, stream=True))).text == "ä👋"
    assert (await ask(chat("ensemble", "aä", script_=halves, stream=True))).text == "a\ufffd\ufffd"


@pytest.mark.parametrize("model", [*ALL, *BATCHERS])
async def test_failures_before_and_after_the_first_words(served: Gateway, model: str) -> None:
    body = chat(model, "a", "b", script_={"fail": "The engine fell over."})
    status, _, message = await refusal(served, body)
    assert status == 502
    assert "The engine fell over." in message
    assert "Traceback" not in message
    assert "File " not in message
    with pytest.raises(openai.APIError, match="fell over"):
        async for _ in await served.client().chat.completions.create(**body, stream=True):
            pass
    long = "Prompt length (9000) exceeds maximum input length (8192)."
    if "vllm" in model:
        long = "The decoder prompt (length 9000) is longer than the maximum model length of 8192."
    response = await served.http.post("/v1/chat/completions", json=chat(model, "a", script_={"fail": long}))
    assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert response.json()["error"]["param"] == "messages"


@pytest.mark.parametrize(("reason", "status"), [("timeout", 504), ("cancelled", 502)])
async def test_reasons_that_are_failures(served: Gateway, reason: str, status: int) -> None:
    for model in ("llmapi", "llmapi_once"):
        assert (await refusal(served, chat(model, "a", script_={"reason": reason})))[0] == status


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("model", ["llmapi", "llmapi_once", "org/served-by-vllm", "ensemble"])
async def test_a_hang_up_reaches_the_engine(
    served: Gateway, journal: Callable[[], list[dict[str, Any]]], model: str, stream: bool
) -> None:
    before = journal()
    body = chat(model, *["tick "] * 2000, script_={"pause": 0.01}, stream=stream, max_tokens=3999)
    caller = await Caller.call(served, body)
    if stream and model != "llmapi_once":
        await caller.first_words()
    else:
        await asyncio.sleep(0.3)
    caller.hang_up()
    async with asyncio.timeout(3):
        engine = {"ensemble": "tensorrt_llm", "org/served-by-vllm": "vllm_model"}.get(model, model)
        while not any((line["model"], line["event"]) == (engine, "cancelled") for line in journal()[len(before) :]):
            await asyncio.sleep(0.05)


async def test_the_official_client(served: Gateway) -> None:
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
