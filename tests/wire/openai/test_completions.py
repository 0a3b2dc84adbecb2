"""Completions: token limits, empty prompts, and requests that only want the prompt back."""

from typing import Any

import pytest

from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.text_requests import CHAT, TEXT, TEXT_STREAM, TextRoute, captured_call, check_error, events

pytestmark = pytest.mark.asyncio(loop_scope="session")

WAYS = [TEXT, TEXT_STREAM]
EITHER = pytest.mark.parametrize("route", WAYS, ids=str)
MODELS = pytest.mark.parametrize("model", ["hello", "others"])


async def choices(
    gateway: RunningGateway, route: TextRoute, model: str = "hello", **fields: Any
) -> list[dict[str, Any]]:
    """Return every choice of a whole or a streamed response."""
    response = await gateway.http.post(route.path, json=route.body(model, **fields))
    assert response.status_code == 200, response.text
    answers = events(response)[:-1] if route.stream else [response.json()]
    return [choice for answer in answers for choice in answer["choices"]]


@EITHER
async def test_the_default_length_of_completions_is_a_setting(triton: FakeTriton, route: TextRoute) -> None:
    for tokens, sent in ((0, {}), (40, {"max_tokens": 40})):
        async with run_gateway(triton.url, completions_max_tokens=tokens) as gateway:
            assert (await captured_call(gateway, triton, route)).sampling == sent
            assert (await captured_call(gateway, triton, route, max_tokens=3)).sampling == {"max_tokens": 3}
            assert (await captured_call(gateway, triton, CHAT)).sampling == {}


async def test_min_tokens_raises_the_default_length(gateway: RunningGateway, triton: FakeTriton) -> None:
    assert (await captured_call(gateway, triton, TEXT, min_tokens=20)).sampling == {"min_tokens": 20, "max_tokens": 20}
    assert (await captured_call(gateway, triton, TEXT, min_tokens=2)).sampling == {"min_tokens": 2, "max_tokens": 16}


@EITHER
@MODELS
async def test_zero_tokens_return_no_text(gateway: RunningGateway, route: TextRoute, model: str) -> None:
    answers = await choices(gateway, route, model, max_tokens=0)
    assert "".join(choice["text"] for choice in answers) == ""
    assert [choice["finish_reason"] for choice in answers if choice["finish_reason"]] == ["length"]


@EITHER
@MODELS
async def test_zero_tokens_with_echo_return_the_prompt(gateway: RunningGateway, route: TextRoute, model: str) -> None:
    answers = await choices(gateway, route, model, prompt="Say it.", max_tokens=0, echo=True)
    assert "".join(choice["text"] for choice in answers) == "Say it."
    assert [choice["finish_reason"] for choice in answers if choice["finish_reason"]] == ["length"]
    several = await choices(gateway, route, model, prompt=["a", "b"], max_tokens=0, echo=True)
    assert sorted((choice["index"], choice["text"]) for choice in several if choice["text"]) == [(0, "a"), (1, "b")]


async def test_foreign_models_generate_one_hidden_token_for_zero(gateway: RunningGateway, triton: FakeTriton) -> None:
    assert (await captured_call(gateway, triton, TEXT, "hello", max_tokens=0)).sampling == {"max_tokens": 0}
    assert (await captured_call(gateway, triton, TEXT, "others", max_tokens=0)).sampling == {"max_tokens": 1}
    response = await gateway.http.post(TEXT.path, json=TEXT.body("others", max_tokens=0, echo=True, logprobs=1))
    assert "prompt" in check_error(response, 400, code="unsupported_parameter", param="logprobs")


async def test_chats_need_at_least_one_token(gateway: RunningGateway) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        check_error(await gateway.http.post(CHAT.path, json={**CHAT.body("hello"), name: 0}), 400, param=name)
    check_error(await gateway.http.post(TEXT.path, json=TEXT.body("hello", max_tokens=-1)), 400, param="max_tokens")
    body = TEXT.body("hello", max_tokens=0, min_tokens=1)
    check_error(await gateway.http.post(TEXT.path, json=body), 400, param="min_tokens")


@EITHER
async def test_a_prompt_that_is_absent_null_or_empty_is_the_empty_text(
    gateway: RunningGateway, triton: FakeTriton, route: TextRoute
) -> None:
    """Our models, and tokenizers that add the beginning-of-sequence token, read the empty prompt as that token."""
    for prompt in ("", None, [""]):
        assert (await captured_call(gateway, triton, route, prompt=prompt)).prompt == ""
    before = len(triton.calls)
    response = await gateway.http.post(route.path, json={"model": "hello", "stream": route.stream})
    assert response.status_code == 200
    assert [call.prompt for call in triton.calls[before:]] == [""]


async def test_top_p_zero_is_greedy_in_every_layout(gateway: RunningGateway, triton: FakeTriton) -> None:
    for model in ("hello", "others"):
        call = await captured_call(gateway, triton, CHAT, model, top_p=0, temperature=0.7)
        assert call.sampling["temperature"] == 0 and "top_p" not in call.sampling
