"""What Triton's vLLM backend takes, and what it means when it refuses."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.triton.asking import Ask
from tests.triton.foreign.asking import asked, both, chat, refusal, script
from tests.wire.gateway_server import RunningGateway

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]

VLLM = "org/served-by-vllm"
OLDER = "bare"
"""A release up to 25.10, whose model has room for 400 characters."""
Journal = Callable[[], list[dict[str, Any]]]


def parameters(journal: Journal, model: str = "vllm_model") -> dict[str, Any]:
    """The sampling parameters of the last request to a model."""
    sent: dict[str, Any] = json.loads(asked(journal(), model)["sampling_parameters"]["values"][0])
    return sent


async def test_an_answer_is_not_cut_where_nobody_says_how_long_it_may_be(ask: Ask, journal: Journal) -> None:
    said = await both(ask, chat(VLLM, *["a"] * 40))
    assert (said.text, said.reason) == ("a" * 40, "stop")
    assert parameters(journal)["max_tokens"] == 2**31 - 1


async def test_an_answer_ends_with_the_context_of_the_engine(ask: Ask) -> None:
    prompt = script(*["a"] * 70)
    said = await both(ask, {"model": OLDER, "prompt": prompt, "max_tokens": 1000})
    assert (said.text, said.reason) == ("a" * (400 - len(prompt)), "length")


async def test_the_models_file_says_how_long_answers_may_be(ask: Ask, journal: Journal) -> None:
    await ask(chat("vllm_of_the_file", "a"))
    assert parameters(journal, "vllm_of_the_file")["max_tokens"] == 600
    await ask(chat("vllm_of_the_file", "a", max_tokens=7))
    assert parameters(journal, "vllm_of_the_file")["max_tokens"] == 7


@pytest.mark.parametrize(("model", "name"), [(VLLM, "structured_outputs"), (OLDER, "guided_decoding")])
async def test_each_release_is_sent_structures_as_it_reads_them(
    ask: Ask, journal: Journal, model: str, name: str
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    for given, sent in (
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}},
            {"json": schema},
        ),
        ({"structured_outputs": {"choice": ["a", "b"]}}, {"choice": ["a", "b"]}),
    ):
        said = await ask({"model": model, "prompt": script("a"), **given})
        assert said.text == "a"
        inputs = parameters(journal, "vllm_model" if model == VLLM else model)
        assert {"structured_outputs", "guided_decoding"} & inputs.keys() == {name}
        assert json.loads(inputs[name]) == sent


async def test_a_schema_that_is_true_is_any_json(ask: Ask) -> None:
    assert (await ask(chat(VLLM, "a", structured_outputs={"json": True}))).text == "a"


async def test_biases_are_refused(served: RunningGateway, ask: Ask) -> None:
    assert (await refusal(served, chat(VLLM, "a", logit_bias={"5": -100})))[:2] == (400, "logit_bias")
    assert (await ask(chat(VLLM, "a", logit_bias={}))).text == "a"


@pytest.mark.parametrize("top_k", [0, -1, 3])
async def test_every_number_of_likeliest_tokens_is_taken(ask: Ask, journal: Journal, top_k: int) -> None:
    await ask(chat(VLLM, "a", top_k=top_k))
    assert parameters(journal)["top_k"] == (top_k or -1)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        # What is a parameter that vLLM refuses, and what it says of others.
        (chat(VLLM, "a", structured_outputs={"json": False}), "structured_outputs"),
        ({"model": VLLM, "prompt": ""}, "prompt"),
        (chat(VLLM, script_={"fail": "Grammar error: no such rule"}, structured_outputs={"regex": "a"}), "structured"),
        (
            chat(VLLM, script_={"fail": "Requested sample logprobs of 20, which is greater than max allowed: 5"}),
            "logprobs",
        ),
        (chat(VLLM, script_={"fail": "At most 1 image(s) may be provided in one prompt."}), "messages"),
        ({"model": OLDER, "prompt": "x" * 500}, "prompt"),
    ],
)
async def test_what_vllm_refuses_is_the_callers_mistake(
    served: RunningGateway, body: dict[str, Any], param: str
) -> None:
    status, named, message = await refusal(served, body)
    assert status == 400
    assert (named or "").startswith(param)
    assert "NoneType" not in message
    assert "Error generating stream" not in message
