"""Models of NVIDIA's layouts and of the vLLM backend, unchanged, asked as OpenAI's client asks."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.triton.asking import Ask
from tests.triton.calling import Caller
from tests.triton.foreign.asking import ALL, BATCHERS, MOCKS, asked, both, chat, refusal, script
from tests.wire.gateway_server import RunningGateway, run_gateway
from tritonic.embedded import EmbeddedTriton

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]


async def test_what_is_offered(served: RunningGateway) -> None:
    models = (await served.http.get("/v1/models")).json()["data"]
    found = {model["id"]: model for model in models}
    assert sorted(found) == sorted([*ALL, *BATCHERS, *MOCKS, "bare", "llmapi_engine", "vllm_of_the_file"])
    assert found["org/served-by-vllm"]["owned_by"] == "org"
    # They do not say when they were made: since when they are known here.
    assert all(time.time() - 900 < model["created"] <= time.time() for model in models)
    giving = {name for name, model in found.items() if model["permission"][0]["allow_logprobs"]}
    assert giving == {"org/served-by-vllm", "bare", "vllm_of_the_file"}


async def test_a_model_without_a_template_completes_only(served: RunningGateway, ask: Ask) -> None:
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
    assert said.reason == "stop"


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


@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm_bls"])
async def test_what_pieces_lose_is_there_in_whole_answers(ask: Ask, model: str) -> None:
    """The steps make text of each response by itself: of half a character, and of a word without the space before."""
    halves = {"bytes": True}
    assert (await ask(chat(model, "東京は日本の首都です。", script_=halves))).text == "東京は日本の首都です。"
    assert (await ask(chat(model, "aä", script_=halves, stream=True))).text == "a\ufffd\ufffd"
    words = ("\u2581It", "\u2581is", "\u2581so")
    assert (await ask(chat(model, *words))).text == "It is so"
    assert (await ask(chat(model, *words, stream=True))).text == "Itisso"


async def test_half_characters_wait_where_all_tokens_are_put_together(ask: Ask) -> None:
    said = await both(ask, chat("accumulating_bls", "ä👋", "\u2581is", script_={"bytes": True}))
    assert said.text == "ä👋 is"


async def test_whole_answers_are_asked_for_in_one_piece(ask: Ask, journal: Callable[[], list[dict[str, Any]]]) -> None:
    for model, flag, engine in (("ensemble", "streaming", "tensorrt_llm"), ("llmapi", "streaming", "llmapi")):
        await ask(chat(model, "a", "b"))
        assert asked(journal(), engine)[flag]["values"] == [False]
        await ask(chat(model, "a", "b", stream=True))
        assert asked(journal(), engine)[flag]["values"] == [True]
    # Only who sees pieces can stop an engine that is not told of stop strings.
    await ask(chat("llmapi", "a", "b", stop="b"))
    assert asked(journal(), "llmapi")["streaming"]["values"] == [True]
    await ask(chat("accumulating_bls", "a", "b"))
    assert asked(journal(), "tensorrt_llm")["streaming"]["values"] == [True]


@pytest.mark.parametrize("model", [*ALL, *BATCHERS])
async def test_failures_before_and_after_the_first_words(served: RunningGateway, model: str) -> None:
    said = [] if model == "accumulating_bls" else ["a", "b"]  # asked for pieces it hangs after the first, see below
    body = chat(model, *said, script_={"fail": "ValueError: The engine fell over."})
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
    """Triton 2.51 does not hand it such a failure: what is left is the gateway's own patience."""
    triton, repository = foreign
    models = repository.parent / "models.toml"
    async with run_gateway(
        triton.grpc_url, triton_secret=triton.secret, models_file=models, request_timeout=1.0
    ) as hasty:
        body = chat("tensorrt_llm_bls", "a", "b", script_={"fail": "The engine fell over."})
        stream = await hasty.client().chat.completions.create(**body, stream=True)
        with pytest.raises(openai.APIError, match="no response for 1 seconds"):
            async for _ in stream:
                pass
        assert (await refusal(hasty, body))[0] == 502


async def test_an_answer_in_one_piece_may_take_longer_than_one_token(foreign: tuple[EmbeddedTriton, Path]) -> None:
    triton, repository = foreign
    models = repository.parent / "models.toml"
    async with run_gateway(
        triton.grpc_url, triton_secret=triton.secret, models_file=models, request_timeout=0.5
    ) as hasty:
        body = chat("ensemble", *"abcd", script_={"pause": 0.4})
        assert (await Ask(hasty)({**body, "max_tokens": 8})).text == "abcd"
        body = chat("ensemble", "", "", "", "a", script_={"pause": 0.4}, max_tokens=1)
        assert (await refusal(hasty, body))[0] == 504


@pytest.mark.parametrize(("reason", "status"), [("timeout", 504), ("cancelled", 502)])
async def test_reasons_that_are_failures(served: RunningGateway, reason: str, status: int) -> None:
    for model in ("llmapi", "llmapi_once"):
        assert (await refusal(served, chat(model, "a", script_={"reason": reason})))[0] == status


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("model", ["llmapi", "llmapi_once", "org/served-by-vllm", "ensemble"])
async def test_a_hang_up_reaches_the_engine(
    served: RunningGateway, journal: Callable[[], list[dict[str, Any]]], model: str, stream: bool
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


async def test_an_engine_that_refuses_its_own_length_is_asked_for_what_is_left(
    served: RunningGateway, ask: Ask, journal: Callable[[], list[dict[str, Any]]]
) -> None:
    """Behind llmapi, engines of TensorRT refuse prompt and answer beyond their length together."""
    for stream in (True, False):
        said = await ask(chat("llmapi_engine", "a", "b", stream=stream))
        assert (said.text, said.reason) == ("ab", "stop")
        left = 1000 - len(script("a", "b"))
        assert asked(journal(), "llmapi_engine")["sampling_param_max_tokens"]["values"] == [left]
    assert (await refusal(served, chat("llmapi_engine", "a", max_tokens=999)))[:2] == (400, "max_tokens")
    assert (await refusal(served, chat("llmapi_engine", "a" * 1000)))[:2] == (400, "messages")


@pytest.mark.parametrize("model", MOCKS)
async def test_models_that_have_little_more_than_a_prompt(
    served: RunningGateway, ask: Ask, journal: Callable[[], list[dict[str, Any]]], model: str
) -> None:
    for stream in (True, False):
        body = {"model": model, "prompt": script("He", "llo", " there"), "stream": stream}
        completed = await ask(body)
        assert (completed.text, completed.reason) == ("Hello there", "stop")
        if model != "counting_mock":  # it leaves it to the model, which is a script
            cut = await ask({**body, "max_tokens": 2})
            assert (cut.text, cut.reason) == ("Hello", "length")
        if model != "barest_vllm":
            stopped = await ask({**body, "stop": " th"})
            assert (stopped.text, stopped.reason) == ("Hello", "stop")
        assert asked(journal(), model)["text_input"]["shape"] == [1, 1]
    if model != "counting_mock":
        said = await both(ask, chat(model, "He", "llo"))
        assert (said.text, said.reason, said.usage or None) == ("Hello", "stop", None)
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
