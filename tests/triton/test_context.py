"""The limit on the tokens of prompt and answer together."""

import asyncio
import re
import time

import httpx
import pytest

from tests.triton.conftest import SHORT_CONTEXT
from tests.triton.engine_metrics import EngineMetrics
from tests.triton.text_client import NAME, TextClient, chat, events, path, prompt, streamed
from tests.wire.gateway_server import RunningGateway
from tests.wire.openai.text_requests import check_error

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]

WORD = " fish"
LONGEST_PAUSE = 1.0
"""Longest pause of a stream while a huge prompt is refused, in seconds."""
TRIES = 5
"""Attempts, the best of which counts: other work may use the machine."""


async def refusal(gateway: RunningGateway, body: dict) -> str:
    response: httpx.Response = await gateway.http.post(path(body), json=body)
    return check_error(
        response, 400, code="context_length_exceeded", param="messages" if "messages" in body else "prompt"
    )


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("ask_for", [chat, prompt])
async def test_a_prompt_that_is_too_long(gateway: RunningGateway, tokenizer, ask_for, stream: bool) -> None:
    body = ask_for(WORD * 9000)
    sentence = await refusal(gateway, streamed(body) if stream else body)
    tokens = 9000 if ask_for is prompt else len(tokenizer.apply_chat_template(body["messages"])["input_ids"])
    assert f"has {tokens} tokens" in sentence or ask_for is chat
    assert "8192" in sentence


async def test_a_prompt_of_a_megabyte_is_refused_while_streams_go_on(
    complete: TextClient, gateway: RunningGateway, tokenizer
) -> None:
    text = "All work and no play makes Jack a dull boy. " * 24_000
    num_tokens = len(tokenizer.encode(text))
    body = streamed(prompt("One, two, three,", max_tokens=400, ignore_eos=True))
    pauses: list[float] = []
    while not pauses or pauses[-1] >= LONGEST_PAUSE:
        assert len(pauses) < TRIES, f"longest pauses of the stream, in seconds: {pauses}"
        longest, last = 0.0, None
        async with events(gateway, body) as stream:
            await anext(stream)
            refusing = asyncio.ensure_future(refusal(gateway, prompt(text)))
            async for _ in stream:
                now = time.monotonic()
                longest, last = max(longest, now - (last or now)), now
                if refusing.done():
                    break
            sentence = await refusing
        # The refusal does not wait until the last token is counted.
        counted = re.search(r"has (?:at least )?(\d+) tokens", sentence)
        assert counted and "8192" in sentence
        assert 8192 < int(counted[1]) <= num_tokens
        pauses.append(longest)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_completion_ends_at_the_end_of_the_context(
    complete: TextClient, short_context_model: str, stream: bool
) -> None:
    length = SHORT_CONTEXT - 16
    for more in ({"max_tokens": 10_000}, {"max_tokens": None}, {"max_tokens": 16}):
        body = {**prompt(WORD * length, ignore_eos=True), "model": short_context_model, **more}
        completion = await complete(streamed(body) if stream else body)
        assert completion.finish_reason == "length"
        assert completion.usage == {"prompt_tokens": length, "completion_tokens": 16, "total_tokens": SHORT_CONTEXT}


async def test_the_last_token_of_the_context(
    complete: TextClient, gateway: RunningGateway, short_context_model: str
) -> None:
    completion = await complete({**prompt(WORD * (SHORT_CONTEXT - 1), ignore_eos=True), "model": short_context_model})
    assert (completion.finish_reason, completion.usage["total_tokens"]) == ("length", SHORT_CONTEXT)
    sentence = await refusal(gateway, {**prompt(WORD * SHORT_CONTEXT), "model": short_context_model})
    assert f"has {SHORT_CONTEXT} tokens" in sentence and f"room for {SHORT_CONTEXT}" in sentence


async def test_no_rows_or_queued_requests_remain(engine: EngineMetrics, short_context_model: str) -> None:
    await engine.wait_idle(NAME)
    await engine.wait_idle(short_context_model)
