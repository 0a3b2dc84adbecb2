"""Sampling parameters reach the model and have their documented meaning."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from tests.triton.text_client import TextClient, TextResponse, chat, prompt, streamed
from tests.wire.gateway_server import RunningGateway

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]

BEGINNING = "The door of the old house opened, and"
REPEATING = "the cat and the dog and the cat and the dog and the cat and the dog and"
LENGTH = 32


async def draw(complete: TextClient, seed: int | None = 1, **more: object) -> TextResponse:
    return await complete(prompt(BEGINNING, **{"max_tokens": LENGTH, "temperature": 1.0, "seed": seed, **more}))


async def greedy(complete: TextClient) -> TextResponse:
    return await draw(complete, seed=None, temperature=0)


async def test_a_seed_determines_the_text(complete: TextClient) -> None:
    body = prompt(BEGINNING, max_tokens=LENGTH, temperature=1.0, seed=1)
    one, again, two, streaming = await asyncio.gather(
        complete(body), draw(complete, 1), draw(complete, 2), complete(streamed(body))
    )
    assert one == again == streaming
    assert one.text != two.text


async def test_without_a_seed_texts_differ(complete: TextClient) -> None:
    drawn = await asyncio.gather(*(draw(complete, None) for _ in range(3)))
    assert len({completion.text for completion in drawn}) == 3


async def test_temperature_zero_is_greedy(complete: TextClient) -> None:
    first, again, seeded = await asyncio.gather(greedy(complete), greedy(complete), draw(complete, 5, temperature=0))
    assert first == again == seeded


@pytest.mark.parametrize("only_the_likeliest", [{"top_k": 1}, {"top_p": 0}, {"top_p": 1e-6}, {"min_p": 1.0}], ids=str)
async def test_one_candidate_token_is_greedy(complete: TextClient, only_the_likeliest: dict) -> None:
    drawn, best = await asyncio.gather(draw(complete, 3, temperature=1.5, **only_the_likeliest), greedy(complete))
    assert drawn == best


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_choice_i_is_drawn_with_the_seed_plus_i(complete: TextClient, stream: bool) -> None:
    """Choice i is drawn with the seed plus i, as if it were requested alone."""
    body = prompt(BEGINNING, max_tokens=LENGTH, temperature=1.0, seed=7, n=3)
    completion, *alone = await asyncio.gather(
        complete(streamed(body) if stream else body), *(draw(complete, 7 + i) for i in range(3))
    )
    assert completion.texts == [one.text for one in alone]
    assert len(set(completion.texts)) == 3
    assert completion.finish_reasons == [one.finish_reason for one in alone]
    assert completion.usage["prompt_tokens"] == alone[0].usage["prompt_tokens"]
    assert completion.usage["completion_tokens"] == sum(one.usage["completion_tokens"] for one in alone)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_stop_string_across_tokens(complete: TextClient, tokenizer, stream: bool) -> None:
    whole = (await greedy(complete)).text
    # The stop string spans the middles of two adjacent tokens, after the first eight tokens.
    spans = tokenizer(whole, return_offsets_mapping=True)["offset_mapping"]
    (begin, _), (_, end) = next(
        (one, two) for one, two in pairwise(spans[8:]) if one[1] - one[0] > 2 and two[1] - two[0] > 2
    )
    stop = whole[begin + 1 : end - 1]
    body = prompt(BEGINNING, max_tokens=LENGTH, stop=[stop, "never said"])
    completion = await complete(streamed(body) if stream else body)
    assert completion.text == whole[: whole.index(stop)]
    assert completion.finish_reason == "stop"
    assert completion.usage["completion_tokens"] < LENGTH


async def test_the_beginning_of_a_stop_string_is_part_of_the_text(complete: TextClient) -> None:
    whole = await greedy(complete)
    body = prompt(BEGINNING, max_tokens=LENGTH, stop=whole.text[-4:] + "\n\nnever said")
    assert await complete(streamed(body)) == await complete(body) == whole


@pytest.mark.parametrize(
    "penalty",
    [{"frequency_penalty": 2.0}, {"presence_penalty": 2.0}, {"repetition_penalty": 1.5}],
    ids=str,
)
async def test_penalties_reduce_repetition(complete: TextClient, tokenizer, penalty: dict) -> None:
    plain, varied = await asyncio.gather(
        complete(prompt(REPEATING, max_tokens=40, ignore_eos=True)),
        complete(prompt(REPEATING, max_tokens=40, ignore_eos=True, **penalty)),
    )
    different = [len(set(tokenizer.encode(completion.text))) for completion in (plain, varied)]
    assert different[1] > 1.5 * different[0]


async def test_ignore_eos(complete: TextClient) -> None:
    question = chat("Hello!", max_tokens=120)
    ended, went_on = await asyncio.gather(complete(question), complete({**question, "ignore_eos": True}))
    assert ended.finish_reason == "stop"
    assert (went_on.finish_reason, went_on.usage["completion_tokens"]) == ("length", 120)
    assert went_on.text.startswith(ended.text)


async def test_max_tokens_zero_returns_the_prompt_only(gateway: RunningGateway) -> None:
    async def complete(**more: object) -> dict[str, Any]:
        body = prompt(BEGINNING, echo=True, logprobs=1, temperature=0, **more)
        response = await gateway.http.post("/v1/completions", json=body)
        assert response.status_code == 200, response.text
        return dict(response.json())

    alone, answered = await asyncio.gather(complete(max_tokens=0), complete(max_tokens=1))
    count = alone["usage"]["prompt_tokens"]
    assert alone["usage"] == {"prompt_tokens": count, "completion_tokens": 0, "total_tokens": count}
    (choice,), (other,) = alone["choices"], answered["choices"]
    assert (choice["text"], choice["finish_reason"]) == (BEGINNING, "length")
    assert len(choice["logprobs"]["tokens"]) == count
    assert choice["logprobs"] == {name: values[:count] for name, values in other["logprobs"].items()}


async def test_an_empty_prompt_is_the_token_that_begins_a_text(complete: TextClient) -> None:
    nothing, token = await asyncio.gather(*(complete(prompt(text, temperature=0)) for text in ("", "<|im_start|>")))
    assert nothing == token
    assert nothing.usage["prompt_tokens"] == 1
