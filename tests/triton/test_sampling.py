"""Sampling parameters reach the model and have their documented meaning."""

import asyncio
from itertools import pairwise
from typing import Any

import pytest

from tests.triton.asking import Ask, Said, chat, prompt, streamed
from tests.wire.gateway_server import RunningGateway

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]

BEGINNING = "The door of the old house opened, and"
REPEATING = "the cat and the dog and the cat and the dog and the cat and the dog and"
LENGTH = 32


async def draw(ask: Ask, seed: int | None = 1, **more: object) -> Said:
    return await ask(prompt(BEGINNING, **{"max_tokens": LENGTH, "temperature": 1.0, "seed": seed, **more}))


async def greedy(ask: Ask) -> Said:
    return await draw(ask, seed=None, temperature=0)


async def test_a_seed_decides_the_text(ask: Ask) -> None:
    body = prompt(BEGINNING, max_tokens=LENGTH, temperature=1.0, seed=1)
    one, again, two, streaming = await asyncio.gather(ask(body), draw(ask, 1), draw(ask, 2), ask(streamed(body)))
    assert one == again == streaming
    assert one.text != two.text


async def test_without_a_seed_each_draw_is_its_own(ask: Ask) -> None:
    drawn = await asyncio.gather(*(draw(ask, None) for _ in range(3)))
    assert len({said.text for said in drawn}) == 3


async def test_temperature_zero_draws_nothing(ask: Ask) -> None:
    first, again, seeded = await asyncio.gather(greedy(ask), greedy(ask), draw(ask, 5, temperature=0))
    assert first == again == seeded


@pytest.mark.parametrize("only_the_likeliest", [{"top_k": 1}, {"top_p": 0}, {"top_p": 1e-6}, {"min_p": 1.0}], ids=str)
async def test_only_the_likeliest_is_greedy(ask: Ask, only_the_likeliest: dict) -> None:
    drawn, best = await asyncio.gather(draw(ask, 3, temperature=1.5, **only_the_likeliest), greedy(ask))
    assert drawn == best


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_several_answers(ask: Ask, stream: bool) -> None:
    """Answer i is drawn with the seed plus i, as if it were requested alone."""
    body = prompt(BEGINNING, max_tokens=LENGTH, temperature=1.0, seed=7, n=3)
    said, *alone = await asyncio.gather(ask(streamed(body) if stream else body), *(draw(ask, 7 + i) for i in range(3)))
    assert said.texts == [one.text for one in alone]
    assert len(set(said.texts)) == 3
    assert said.reasons == [one.reason for one in alone]
    assert said.usage["prompt_tokens"] == alone[0].usage["prompt_tokens"]
    assert said.usage["completion_tokens"] == sum(one.usage["completion_tokens"] for one in alone)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_stop_string_across_tokens(ask: Ask, tokenizer, stream: bool) -> None:
    whole = (await greedy(ask)).text
    # From the middle of one token into the middle of the one behind it, some way into the text.
    spans = tokenizer(whole, return_offsets_mapping=True)["offset_mapping"]
    (begin, _), (_, end) = next(
        (one, two) for one, two in pairwise(spans[8:]) if one[1] - one[0] > 2 and two[1] - two[0] > 2
    )
    stop = whole[begin + 1 : end - 1]
    body = prompt(BEGINNING, max_tokens=LENGTH, stop=[stop, "never said"])
    said = await ask(streamed(body) if stream else body)
    assert said.text == whole[: whole.index(stop)]
    assert said.reason == "stop"
    assert said.usage["completion_tokens"] < LENGTH


async def test_a_stop_string_that_only_begins_is_shown(ask: Ask) -> None:
    whole = await greedy(ask)
    body = prompt(BEGINNING, max_tokens=LENGTH, stop=whole.text[-4:] + "\n\nnever said")
    assert await ask(streamed(body)) == await ask(body) == whole


@pytest.mark.parametrize(
    "penalty",
    [{"frequency_penalty": 2.0}, {"presence_penalty": 2.0}, {"repetition_penalty": 1.5}],
    ids=str,
)
async def test_penalties_lessen_repetition(ask: Ask, tokenizer, penalty: dict) -> None:
    plain, varied = await asyncio.gather(
        ask(prompt(REPEATING, max_tokens=40, ignore_eos=True)),
        ask(prompt(REPEATING, max_tokens=40, ignore_eos=True, **penalty)),
    )
    different = [len(set(tokenizer.encode(said.text))) for said in (plain, varied)]
    assert different[1] > 1.5 * different[0]


async def test_ignore_eos(ask: Ask) -> None:
    question = chat("Hello!", max_tokens=120)
    ended, went_on = await asyncio.gather(ask(question), ask({**question, "ignore_eos": True}))
    assert ended.reason == "stop"
    assert (went_on.reason, went_on.usage["completion_tokens"]) == ("length", 120)
    assert went_on.text.startswith(ended.text)


async def test_a_prompt_alone_is_read_and_not_answered(gateway: RunningGateway) -> None:
    async def ask(**more: object) -> dict[str, Any]:
        body = prompt(BEGINNING, echo=True, logprobs=1, temperature=0, **more)
        response = await gateway.http.post("/v1/completions", json=body)
        assert response.status_code == 200, response.text
        return dict(response.json())

    alone, answered = await asyncio.gather(ask(max_tokens=0), ask(max_tokens=1))
    count = alone["usage"]["prompt_tokens"]
    assert alone["usage"] == {"prompt_tokens": count, "completion_tokens": 0, "total_tokens": count}
    (choice,), (other,) = alone["choices"], answered["choices"]
    assert (choice["text"], choice["finish_reason"]) == (BEGINNING, "length")
    assert len(choice["logprobs"]["tokens"]) == count
    assert choice["logprobs"] == {name: values[:count] for name, values in other["logprobs"].items()}


async def test_an_empty_prompt_is_the_token_that_begins_a_text(ask: Ask) -> None:
    nothing, token = await asyncio.gather(*(ask(prompt(text, temperature=0)) for text in ("", "<|im_start|>")))
    assert nothing == token
    assert nothing.usage["prompt_tokens"] == 1
