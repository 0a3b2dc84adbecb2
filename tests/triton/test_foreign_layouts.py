"""Models of NVIDIA's layouts and of the vLLM backend, unchanged, asked as OpenAI's client asks."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio

from tests.triton.asking import Ask, Said
from tests.triton.calling import Caller
from tests.triton.foreign import layouts
from tests.wire.serving import Gateway, serve
from tritonic.embedded import EmbeddedTriton

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]

MODELS = """
[models."llmapi"]
chat_template_file = "plain.jinja"
context_length = 4000
[models."llmapi_deltas"]
tokenizer_config = "tokenizer_config.json"
[models."llmapi_once"]
chat_template_file = "plain.jinja"
modalities = ["text", "image"]
[models."vllm_model"]
served_name = "org/served-by-vllm"
chat_template_file = "plain.jinja"
owned_by = "org"
[models."ensemble"]
chat_template_file = "plain.jinja"
context_length = 4000
[models."tensorrt_llm_bls"]
chat_template_file = "plain.jinja"
context_length = 4000
[models."accumulating_bls"]
chat_template_file = "plain.jinja"
max_tokens = 100
[models."secret"]
hidden = true
"""

ALL = ["llmapi", "llmapi_deltas", "llmapi_once", "org/served-by-vllm"]
BATCHERS = ["ensemble", "tensorrt_llm_bls", "accumulating_bls"]
PICTURE = "data:image/gif;base64,R0lGODlhAQABAIAAAP///wAAACH5BAEAAAAALAAAAAABAAEAAAICRAEAOw=="


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedTriton, Path]]:
    repository = tmp_path_factory.mktemp("foreign") / "repository"
    repository.mkdir()
    layouts.install_llmapi(repository, "llmapi")
    layouts.install_llmapi(repository, "llmapi_deltas", grow="delta")
    layouts.install_llmapi(repository, "llmapi_once", decoupled=False)
    layouts.install_llmapi(repository, "secret")
    layouts.install_vllm(repository, "vllm_model")
    layouts.install_vllm(repository, "bare")
    layouts.install_inflight_batcher(repository)
    with EmbeddedTriton(repository) as running:
        yield running, repository


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served(foreign: tuple[EmbeddedTriton, Path]) -> AsyncIterator[Gateway]:
    triton, repository = foreign
    template = "{% for m in messages %}{{ m.content if m.content is string else m.content[0].text }}{% endfor %}"
    (repository.parent / "plain.jinja").write_text(template)
    config = {"chat_template": template, "bos_token": {"content": "<s>"}, "eos_token": "</s>"}
    (repository.parent / "tokenizer_config.json").write_text(json.dumps(config))
    (repository.parent / "models.toml").write_text(MODELS)
    async with serve(triton.grpc_url, models_file=repository.parent / "models.toml") as running:
        yield running


@pytest.fixture
def ask(served: Gateway) -> Ask:
    return Ask(served)


@pytest.fixture
def journal(foreign: tuple[EmbeddedTriton, Path]) -> Callable[[], list[dict[str, Any]]]:
    return lambda: layouts.journal(foreign[1])


def script(*say: str, **more: Any) -> str:
    return json.dumps({"say": say, **more})


def chat(model: str, *say: str, script_: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    content = script(*say, **(script_ or {}))
    return {"model": model, "messages": [{"role": "user", "content": content}], **more}


async def both(ask: Ask, body: dict[str, Any]) -> Said:
    """What is said whole, and streamed, which has to be the same."""
    whole = await ask(body)
    streamed = await ask({**body, "stream": True, "stream_options": {"include_usage": True}})
    assert (whole.texts, whole.reasons) == (streamed.texts, streamed.reasons)
    assert (whole.usage or {}) == (streamed.usage or {})
    return whole


async def refusal(served: Gateway, body: dict[str, Any]) -> tuple[int, str | None, str]:
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    response = await served.http.post(path, json=body)
    error = response.json()["error"]
    return response.status_code, error["param"], error["message"]


def asked(journal: list[dict[str, Any]], model: str) -> dict[str, Any]:
    """The inputs of the last request to a model."""
    (*_, last) = (line["inputs"] for line in journal if line["model"] == model and line["event"] == "asked")
    return last


async def test_what_is_offered(served: Gateway) -> None:
    models = (await served.http.get("/v1/models")).json()["data"]
    assert sorted(model["id"] for model in models if "id" in model) == sorted([*ALL, *BATCHERS, "bare"])
    (renamed,) = (model for model in models if model.get("id") == "org/served-by-vllm")
    assert renamed["owned_by"] == "org"


async def test_a_model_without_a_template_completes_only(served: Gateway, ask: Ask) -> None:
    status, param, message = await refusal(served, chat("bare", "a"))
    assert (status, param) == (400, "model")
    assert "it can: complete" in message
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


async def test_the_tensors_of_llmapi(ask: Ask, journal: Callable[[], list[dict[str, Any]]]) -> None:
    more = {"temperature": 0.5, "top_p": 0.9, "top_k": 5, "seed": -1, "presence_penalty": 1.0, "frequency_penalty": -1}
    await ask(chat("llmapi", "a", stream=True, **more))
    inputs = asked(journal(), "llmapi")
    values = {name: tensor["values"][0] for name, tensor in inputs.items() if name != "text_input"}
    assert values == pytest.approx(
        {
            "streaming": True,
            "sampling_param_exclude_input_from_output": True,
            "return_finish_reason": True,
            "sampling_param_temperature": 0.5,
            "sampling_param_top_p": 0.9,
            "sampling_param_frequency_penalty": -1.0,
            "sampling_param_presence_penalty": 1.0,
            "sampling_param_max_tokens": 4000,
            "sampling_param_top_k": 5,
            "sampling_param_seed": 2**64 - 1,
        }
    )
    assert all(tensor["shape"] == [1] for tensor in inputs.values())
    await ask(chat("llmapi_once", "a", stream=True))
    once = asked(journal(), "llmapi_once")
    assert once["streaming"]["values"] == [False]
    assert "sampling_param_max_tokens" not in once


@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm_bls"])
async def test_the_tensors_of_the_batchers(ask: Ask, journal: Callable[[], list[dict[str, Any]]], model: str) -> None:
    await ask(chat(model, "a", temperature=0.5, min_tokens=1, seed=7, repetition_penalty=1.5, presence_penalty=1))
    inputs = asked(journal(), "tensorrt_llm")
    found = {name: tensor["values"][0] for name, tensor in inputs.items() if len(tensor["values"]) == 1}
    expected = {
        "streaming": True,
        "exclude_input_in_output": True,
        "request_output_len": 4000,
        "temperature": 0.5,
        "runtime_top_p": 1.0,
        "min_tokens": 1,
        "seed": 7,
        "repetition_penalty": 1.5,
        "presence_penalty": 1.0,
        "return_num_input_tokens": True,
        "return_num_output_tokens": True,
    }
    assert {name: found[name] for name in expected} == expected
    await ask(chat(model, "a", temperature=0))
    inputs = asked(journal(), "tensorrt_llm")
    assert inputs["runtime_top_k"]["values"] == [1]
    assert "seed" not in inputs


@pytest.mark.parametrize("model", BATCHERS)
async def test_structures_become_guides(ask: Ask, journal: Callable[[], list[dict[str, Any]]], model: str) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    asks = [
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}}, "json_schema"),
        ({"structured_outputs": {"regex": "[0-9]+"}}, "regex"),
        ({"structured_outputs": {"choice": ["a.b", "c"]}}, "regex"),
        ({"structured_outputs": {"grammar": 'root ::= "a"'}}, "ebnf_grammar"),
    ]
    guides = []
    for more, kind in asks:
        await ask(chat(model, "a", **more))
        inputs = asked(journal(), "tensorrt_llm")
        assert inputs["guided_decoding_guide_type"]["values"] == [kind]
        guides += inputs["guided_decoding_guide"]["values"]
    assert json.loads(guides[0]) == schema
    assert guides[1:] == ["[0-9]+", r"a\.b|c", 'root ::= "a"']


async def test_several_answers(ask: Ask, served: Gateway) -> None:
    said = await both(ask, chat("ensemble", "a", "b", n=3))
    assert (said.texts, said.reasons) == (["ab"] * 3, ["stop"] * 3)
    assert said.usage["completion_tokens"] == 6
    said = await both(ask, chat("org/served-by-vllm", "a", "b", n=2))
    assert (said.texts, said.usage["completion_tokens"]) == (["ab"] * 2, 4)
    for model in ("tensorrt_llm_bls", "llmapi"):
        assert (await refusal(served, chat(model, "a", n=2)))[:2] == (400, "n")


REFUSED = [
    ({"logprobs": True}, "logprobs", ["llmapi", *BATCHERS]),
    ({"logit_bias": {"1": 5}}, "logit_bias", ["llmapi", *BATCHERS]),
    ({"min_p": 0.5}, "min_p", ["llmapi", *BATCHERS]),
    ({"ignore_eos": True}, "ignore_eos", ["llmapi", *BATCHERS]),
    ({"stop_token_ids": [1]}, "stop_token_ids", ["llmapi", *BATCHERS]),
    ({"min_tokens": 2}, "min_tokens", ["llmapi"]),
    ({"min_tokens": 2, "stop": "x"}, "min_tokens", BATCHERS),
    ({"repetition_penalty": 1.2}, "repetition_penalty", ["llmapi"]),
    ({"response_format": {"type": "json_object"}}, "response_format", ["llmapi"]),
]


@pytest.mark.parametrize(("option", "param", "models"), REFUSED)
async def test_what_a_layout_cannot_carry_is_refused(
    served: Gateway, option: dict[str, Any], param: str, models: list[str]
) -> None:
    for model in models:
        assert (await refusal(served, chat(model, "a", **option)))[:2] == (400, param), model


async def test_log_probabilities_of_the_vllm_backend(served: Gateway, ask: Ask) -> None:
    answer = await served.client().chat.completions.create(**chat("org/served-by-vllm", "a", "b", logprobs=True))
    assert answer.choices[0].logprobs is not None
    assert [(entry.token, entry.logprob) for entry in answer.choices[0].logprobs.content or []] == [
        ("a", -0.5),
        ("b", -0.5),
    ]
    body = {"model": "org/served-by-vllm", "prompt": script("a"), "echo": True, "logprobs": 1}
    assert (await refusal(served, body))[:2] == (400, "logprobs")


async def test_prompts_of_token_ids_are_refused(served: Gateway) -> None:
    for model in (*ALL, *BATCHERS):
        assert (await refusal(served, {"model": model, "prompt": [1, 2]}))[:2] == (400, "prompt"), model


async def test_pictures(served: Gateway, journal: Callable[[], list[dict[str, Any]]]) -> None:
    content = [{"type": "text", "text": script("a cat")}, {"type": "image_url", "image_url": {"url": PICTURE}}]
    body = {"model": "llmapi_once", "messages": [{"role": "user", "content": content}]}
    answer = (await served.http.post("/v1/chat/completions", json=body)).json()
    assert answer["choices"][0]["message"]["content"] == "a cat"
    assert asked(journal(), "llmapi_once")["image_url"]["values"] == [PICTURE]
    for model in ("llmapi", *BATCHERS):
        status, param, _ = await refusal(served, {**body, "model": model})
        assert (status, param) == (400, "messages[0].content[1]")


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
