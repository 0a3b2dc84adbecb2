"""Several answers of models that give one at a time, or do not say which of several they tell of."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.triton.asking import Ask
from tests.triton.calling import Caller
from tests.triton.foreign.asking import both, chat, refusal, script
from tests.wire.gateway_server import RunningGateway

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]

VLLM = "org/served-by-vllm"
Journal = Callable[[], list[dict[str, Any]]]


def asked_since(before: int, journal: Journal, model: str) -> list[dict[str, Any]]:
    lines = (line for line in journal()[before:] if (line["model"], line["event"]) == (model, "asked"))
    return [line["inputs"] for line in lines]


async def test_vllm_is_asked_for_each_by_itself(ask: Ask, journal: Journal) -> None:
    before = len(journal())
    body = chat(VLLM, "<seed>", "x", " y", n=4, temperature=1.2, seed=1, stop=[" "], max_tokens=10)
    said = await both(ask, body)
    assert (said.texts, said.reasons) == (["1x", "2x", "3x", "4x"], ["stop"] * 4)
    prompt = len(script("<seed>", "x", " y"))
    assert said.usage == {"prompt_tokens": prompt, "completion_tokens": 12, "total_tokens": prompt + 12}
    inputs = asked_since(before, journal, "vllm_model")
    parameters = [json.loads(each["sampling_parameters"]["values"][0]) for each in inputs]
    assert sorted(each["seed"] for each in parameters) == [1, 1, 2, 2, 3, 3, 4, 4]
    assert not any("n" in each for each in parameters)


async def test_vllm_gives_several_of_its_likeliest_answer(ask: Ask) -> None:
    said = await both(ask, chat(VLLM, "a", "b", n=3, temperature=0))
    assert (said.texts, said.usage["completion_tokens"]) == (["ab"] * 3, 6)


async def test_several_completions_of_several_prompts(ask: Ask) -> None:
    one, other = script("<seed>"), script("b", "<seed>")
    said = await ask({"model": VLLM, "prompt": [one, other], "n": 2, "seed": 5, "echo": True})
    assert said.texts == [f"{one}5", f"{one}6", f"{other}b5", f"{other}b6"]
    assert said.usage["prompt_tokens"] == len(one) + len(other)


async def test_what_the_tokens_of_several_answers_were_worth(served: RunningGateway) -> None:
    body = chat(VLLM, "a", "<seed>", n=2, seed=3, logprobs=True)
    answer = await served.client().chat.completions.create(**body)
    told = [[entry.token for entry in choice.logprobs.content or []] for choice in answer.choices if choice.logprobs]
    assert told == [["a", "3"], ["a", "4"]]


@pytest.mark.parametrize("model", ["tensorrt_llm_bls", "accumulating_bls", "llmapi", "llmapi_once"])
async def test_layouts_that_give_one_are_asked_again_with_other_seeds(ask: Ask, journal: Journal, model: str) -> None:
    before = len(journal())
    said = await both(ask, chat(model, "a", "b", "c", n=3, max_tokens=50))
    assert said.texts == ["abc"] * 3
    if "bls" in model:
        assert said.usage["prompt_tokens"] == len(script("a", "b", "c"))
        assert said.usage["completion_tokens"] == 9
    inputs = asked_since(before, journal, "tensorrt_llm" if "bls" in model else model)
    name, top = ("seed", "runtime_top_p") if "bls" in model else ("sampling_param_seed", "sampling_param_top_p")
    assert len({each[name]["values"][0] for each in inputs}) == len(inputs) == 6
    assert all(each[top]["values"] == [1.0] for each in inputs)


async def test_the_ensemble_gives_several_at_once(ask: Ask) -> None:
    said = await both(ask, chat("ensemble", "a", "b", n=3))
    assert (said.texts, said.reasons) == (["ab"] * 3, ["stop"] * 3)
    assert said.usage["completion_tokens"] == 6


@pytest.mark.parametrize("stream", [True, False])
async def test_a_hang_up_ends_all_of_them(served: RunningGateway, journal: Journal, stream: bool) -> None:
    before = len(journal())
    body = chat(VLLM, *["tick "] * 2000, script_={"pause": 0.01}, stream=stream, n=3)
    caller = await Caller.call(served, body)
    async with asyncio.timeout(3):
        while len(asked_since(before, journal, "vllm_model")) < 3:
            await asyncio.sleep(0.02)
    caller.hang_up()
    async with asyncio.timeout(3):
        while sum(line["event"] == "cancelled" for line in journal()[before:]) < 3:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("model", [VLLM, "llmapi", "tensorrt_llm_bls"])
async def test_a_failure_of_several_is_one(served: RunningGateway, model: str) -> None:
    status, _, message = await refusal(served, chat(model, "a", script_={"fail": "The engine fell over."}, n=3))
    assert (status, "The engine fell over." in message) == (502, True)
