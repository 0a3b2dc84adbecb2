"""Several choices (`n`) of models that return one at a time, or do not number their choices."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.triton.disconnecting_client import DisconnectingClient
from tests.triton.foreign.scripted_requests import chat, complete_both_ways, refusal, script
from tests.triton.text_client import TextClient
from tests.wire.gateway_server import RunningGateway

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]

VLLM = "org/served-by-vllm"
Journal = Callable[[], list[dict[str, Any]]]


def inputs_since(before: int, journal: Journal, model: str) -> list[dict[str, Any]]:
    lines = (line for line in journal()[before:] if (line["model"], line["event"]) == (model, "received"))
    return [line["inputs"] for line in lines]


async def test_vllm_gets_a_request_for_each_choice(complete: TextClient, journal: Journal) -> None:
    before = len(journal())
    body = chat(VLLM, "<seed>", "x", " y", n=4, temperature=1.2, seed=1, stop=[" "], max_tokens=10)
    completion = await complete_both_ways(complete, body)
    assert (completion.texts, completion.finish_reasons) == (["1x", "2x", "3x", "4x"], ["stop"] * 4)
    prompt = len(script("<seed>", "x", " y"))
    assert completion.usage == {"prompt_tokens": prompt, "completion_tokens": 12, "total_tokens": prompt + 12}
    inputs = inputs_since(before, journal, "vllm_model")
    parameters = [json.loads(each["sampling_parameters"]["values"][0]) for each in inputs]
    assert sorted(each["seed"] for each in parameters) == [1, 1, 2, 2, 3, 3, 4, 4]
    assert not any("n" in each for each in parameters)


async def test_greedy_choices_of_vllm_are_equal(complete: TextClient) -> None:
    completion = await complete_both_ways(complete, chat(VLLM, "a", "b", n=3, temperature=0))
    assert (completion.texts, completion.usage["completion_tokens"]) == (["ab"] * 3, 6)


async def test_several_completions_of_several_prompts(complete: TextClient) -> None:
    one, other = script("<seed>"), script("b", "<seed>")
    completion = await complete({"model": VLLM, "prompt": [one, other], "n": 2, "seed": 5, "echo": True})
    assert completion.texts == [f"{one}5", f"{one}6", f"{other}b5", f"{other}b6"]
    assert completion.usage["prompt_tokens"] == len(one) + len(other)


async def test_log_probabilities_of_several_choices(served: RunningGateway) -> None:
    body = chat(VLLM, "a", "<seed>", n=2, seed=3, logprobs=True)
    answer = await served.client().chat.completions.create(**body)
    tokens = [[entry.token for entry in choice.logprobs.content or []] for choice in answer.choices if choice.logprobs]
    assert tokens == [["a", "3"], ["a", "4"]]


@pytest.mark.parametrize("model", ["tensorrt_llm_bls", "accumulating_bls", "llmapi", "llmapi_once"])
async def test_layouts_with_one_choice_get_requests_with_other_seeds(
    complete: TextClient, journal: Journal, model: str
) -> None:
    before = len(journal())
    completion = await complete_both_ways(complete, chat(model, "a", "b", "c", n=3, max_tokens=50))
    assert completion.texts == ["abc"] * 3
    if "bls" in model:
        assert completion.usage["prompt_tokens"] == len(script("a", "b", "c"))
        assert completion.usage["completion_tokens"] == 9
    inputs = inputs_since(before, journal, "tensorrt_llm" if "bls" in model else model)
    name, top = ("seed", "runtime_top_p") if "bls" in model else ("sampling_param_seed", "sampling_param_top_p")
    assert len({each[name]["values"][0] for each in inputs}) == len(inputs) == 6
    assert all(each[top]["values"] == [1.0] for each in inputs)


async def test_the_ensemble_returns_several_choices(complete: TextClient) -> None:
    completion = await complete_both_ways(complete, chat("ensemble", "a", "b", n=3))
    assert (completion.texts, completion.finish_reasons) == (["ab"] * 3, ["stop"] * 3)
    assert completion.usage["completion_tokens"] == 6


@pytest.mark.parametrize("stream", [True, False])
async def test_a_disconnect_cancels_all_choices(served: RunningGateway, journal: Journal, stream: bool) -> None:
    before = len(journal())
    body = chat(VLLM, *["tick "] * 2000, script_={"pause": 0.01}, stream=stream, n=3)
    client = await DisconnectingClient.send(served, body)
    async with asyncio.timeout(15):
        while len(inputs_since(before, journal, "vllm_model")) < 3:
            await asyncio.sleep(0.02)
    client.disconnect()
    async with asyncio.timeout(15):
        while sum(line["event"] == "cancelled" for line in journal()[before:]) < 3:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("model", [VLLM, "llmapi", "tensorrt_llm_bls"])
async def test_failures_of_several_choices_are_one_error(served: RunningGateway, model: str) -> None:
    status, _, message = await refusal(served, chat(model, "a", script_={"fail": "The engine fell over."}, n=3))
    assert (status, "The engine fell over." in message) == (502, True)
