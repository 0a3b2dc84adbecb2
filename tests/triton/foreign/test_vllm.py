"""Requests to Triton's vLLM backend, and its refusals."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.triton.foreign.scripted_requests import chat, complete_both_ways, last_inputs, refusal, script
from tests.triton.text_client import TextClient
from tests.wire.gateway_server import RunningGateway

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]

VLLM = "org/served-by-vllm"
OLDER = "bare"
"""A release up to 25.10, whose model has room for 400 characters."""
Journal = Callable[[], list[dict[str, Any]]]


def parameters(journal: Journal, model: str = "vllm_model") -> dict[str, Any]:
    """Return the sampling parameters of the last request to a model."""
    sent: dict[str, Any] = json.loads(last_inputs(journal(), model)["sampling_parameters"]["values"][0])
    return sent


async def test_completions_are_unlimited_by_default(complete: TextClient, journal: Journal) -> None:
    completion = await complete_both_ways(complete, chat(VLLM, *["a"] * 40))
    assert (completion.text, completion.finish_reason) == ("a" * 40, "stop")
    assert parameters(journal)["max_tokens"] == 2**31 - 1


async def test_a_completion_ends_at_the_context_of_vllm(complete: TextClient) -> None:
    prompt = script(*["a"] * 70)
    completion = await complete_both_ways(complete, {"model": OLDER, "prompt": prompt, "max_tokens": 1000})
    assert (completion.text, completion.finish_reason) == ("a" * (400 - len(prompt)), "length")


async def test_the_models_file_limits_max_tokens(complete: TextClient, journal: Journal) -> None:
    await complete(chat("vllm_of_the_file", "a"))
    assert parameters(journal, "vllm_of_the_file")["max_tokens"] == 600
    await complete(chat("vllm_of_the_file", "a", max_tokens=7))
    assert parameters(journal, "vllm_of_the_file")["max_tokens"] == 7


@pytest.mark.parametrize(("model", "name"), [(VLLM, "structured_outputs"), (OLDER, "guided_decoding")])
async def test_structured_outputs_are_sent_in_the_form_of_the_release(
    complete: TextClient, journal: Journal, model: str, name: str
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    for given, sent in (
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}},
            {"json": schema},
        ),
        ({"structured_outputs": {"choice": ["a", "b"]}}, {"choice": ["a", "b"]}),
    ):
        completion = await complete({"model": model, "prompt": script("a"), **given})
        assert completion.text == "a"
        inputs = parameters(journal, "vllm_model" if model == VLLM else model)
        assert {"structured_outputs", "guided_decoding"} & inputs.keys() == {name}
        assert json.loads(inputs[name]) == sent


async def test_a_schema_that_is_true_is_any_json(complete: TextClient) -> None:
    assert (await complete(chat(VLLM, "a", structured_outputs={"json": True}))).text == "a"


async def test_biases_are_refused(served: RunningGateway, complete: TextClient) -> None:
    assert (await refusal(served, chat(VLLM, "a", logit_bias={"5": -100})))[:2] == (400, "logit_bias")
    assert (await complete(chat(VLLM, "a", logit_bias={}))).text == "a"


@pytest.mark.parametrize("top_k", [0, -1, 3])
async def test_every_top_k_is_accepted(complete: TextClient, journal: Journal, top_k: int) -> None:
    await complete(chat(VLLM, "a", top_k=top_k))
    assert parameters(journal)["top_k"] == (top_k or -1)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        # Parameters that vLLM refuses, and its messages about others.
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
async def test_refusals_of_vllm_are_client_errors(served: RunningGateway, body: dict[str, Any], param: str) -> None:
    status, named, message = await refusal(served, body)
    assert status == 400
    assert (named or "").startswith(param)
    assert "NoneType" not in message
    assert "Error generating stream" not in message
