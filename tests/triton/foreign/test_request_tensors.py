"""Tensors of published layouts as the engines receive them, and refusals of options without a tensor."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.triton.foreign.scripted_requests import ALL, BATCHERS, chat, last_inputs, refusal, script
from tests.triton.text_client import TextClient
from tests.wire.gateway_server import RunningGateway

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]

PICTURE = "data:image/gif;base64,R0lGODlhAQABAIAAAP///wAAACH5BAEAAAAALAAAAAABAAEAAAICRAEAOw=="


async def test_the_tensors_of_llmapi(complete: TextClient, journal: Callable[[], list[dict[str, Any]]]) -> None:
    more: dict[str, Any] = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "seed": -1,
        "presence_penalty": 1.0,
        "frequency_penalty": -1,
    }
    await complete(chat("llmapi", "a", stream=True, **more))
    inputs = last_inputs(journal(), "llmapi")
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
    await complete(chat("llmapi_once", "a", stream=True))
    once = last_inputs(journal(), "llmapi_once")
    assert once["streaming"]["values"] == [False]
    assert "sampling_param_max_tokens" not in once


@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm_bls"])
async def test_the_tensors_of_the_batchers(
    complete: TextClient, journal: Callable[[], list[dict[str, Any]]], model: str
) -> None:
    more: dict[str, Any] = {
        "temperature": 0.5,
        "min_tokens": 1,
        "seed": 7,
        "repetition_penalty": 1.5,
        "presence_penalty": 1,
    }
    await complete(chat(model, "a", stream=True, **more))
    inputs = last_inputs(journal(), "tensorrt_llm")
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
    await complete(chat(model, "a", temperature=0))
    inputs = last_inputs(journal(), "tensorrt_llm")
    assert inputs["runtime_top_k"]["values"] == [1]
    assert "seed" not in inputs


@pytest.mark.parametrize("model", BATCHERS)
async def test_structured_outputs_become_guided_decoding(
    complete: TextClient, journal: Callable[[], list[dict[str, Any]]], model: str
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    asks: list[tuple[dict[str, Any], str]] = [
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}}, "json_schema"),
        ({"structured_outputs": {"regex": "[0-9]+"}}, "regex"),
        ({"structured_outputs": {"choice": ["a.b", "c"]}}, "regex"),
        ({"structured_outputs": {"grammar": 'root ::= "a"'}}, "ebnf_grammar"),
    ]
    guides = []
    for more, kind in asks:
        await complete(chat(model, "a", **more))
        inputs = last_inputs(journal(), "tensorrt_llm")
        assert inputs["guided_decoding_guide_type"]["values"] == [kind]
        guides += inputs["guided_decoding_guide"]["values"]
    assert json.loads(guides[0]) == schema
    assert guides[1:] == ["[0-9]+", r"a\.b|c", 'root ::= "a"']


REFUSED: list[tuple[dict[str, Any], str, list[str]]] = [
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
async def test_options_that_a_layout_lacks_are_refused(
    served: RunningGateway, option: dict[str, Any], param: str, models: list[str]
) -> None:
    for model in models:
        assert (await refusal(served, chat(model, "a", **option)))[:2] == (400, param), model


async def test_log_probabilities_of_the_vllm_backend(served: RunningGateway, complete: TextClient) -> None:
    answer = await served.client().chat.completions.create(**chat("org/served-by-vllm", "a", "b", logprobs=True))
    assert answer.choices[0].logprobs is not None
    assert [(entry.token, entry.logprob) for entry in answer.choices[0].logprobs.content or []] == [
        ("a", -0.5),
        ("b", -0.5),
    ]
    body = {"model": "org/served-by-vllm", "prompt": script("a"), "echo": True, "logprobs": 1}
    assert (await refusal(served, body))[:2] == (400, "logprobs")


@pytest.mark.parametrize("model", ["llmapi_deltas", "org/served-by-vllm", "ensemble"])
async def test_special_tokens_of_callers_are_broken_for_models_that_tokenize(complete: TextClient, model: str) -> None:
    """The scripts of these models are in the prompt."""
    completion = await complete(chat(model, "a<|im_end|>b [INST] [x] <p>"))
    assert completion.text == "a<\u200b|im_end|>b [\u200bINST] [x] <p>"
    prompt = {"model": model, "prompt": script("a<|im_end|>b"), "max_tokens": 100}
    assert (await complete(prompt)).text == "a<|im_end|>b"


async def test_special_tokens_are_left_where_the_models_file_says_so(complete: TextClient) -> None:
    assert (await complete(chat("accumulating_bls", "a<|im_end|>b"))).text == "a<|im_end|>b"


async def test_prompts_of_token_ids_are_refused(served: RunningGateway) -> None:
    for model in (*ALL, *BATCHERS):
        assert (await refusal(served, {"model": model, "prompt": [1, 2]}))[:2] == (400, "prompt"), model


async def test_image_urls(served: RunningGateway, journal: Callable[[], list[dict[str, Any]]]) -> None:
    content = [{"type": "text", "text": script("a cat")}, {"type": "image_url", "image_url": {"url": PICTURE}}]
    body = {"model": "llmapi_once", "messages": [{"role": "user", "content": content}]}
    answer = (await served.http.post("/v1/chat/completions", json=body)).json()
    assert answer["choices"][0]["message"]["content"] == "a cat"
    assert last_inputs(journal(), "llmapi_once")["image_url"]["values"] == [PICTURE]
    for model in ("llmapi", *BATCHERS):
        status, param, _ = await refusal(served, {**body, "model": model})
        assert (status, param) == (400, "messages[0].content[1]")
