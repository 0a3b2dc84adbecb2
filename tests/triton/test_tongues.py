"""Text of all sorts goes in and comes out unbroken."""

import json

import pytest

from tests.triton.asking import Ask, added, chat, events, prompt, streamed
from tests.wire.gateway_server import RunningGateway

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]

TONGUES = {
    "families": "👨‍👩‍👧‍👦 🏳️‍🌈 👩🏽‍🚀",
    "Chinese": "你好世界。今天天气很好。",
    "Japanese": "こんにちは世界。",
    "Hebrew": "שלום עולם",
    "Arabic": "مرحبا بالعالم",
    "mixed": "naïve 東京 🙂 Ωμέγα שלום",
}
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("tongue", TONGUES)
async def test_what_is_copied_comes_out_unbroken(ask: Ask, gateway: RunningGateway, tongue: str) -> None:
    """A model that reads one line again and again writes it once more; each of its characters takes several tokens."""
    line = TONGUES[tongue]
    body = prompt(f"{line}\n" * 8, max_tokens=64, stop="\n")
    whole = await ask(body)
    assert whole.text == line
    assert whole.usage["completion_tokens"] > len(line.split())
    said = []
    async with events(gateway, streamed(body)) as stream:
        async for event in stream:
            said += [added(choice) for choice in event["choices"]] if event != "[DONE]" else []
    assert "".join(said) == line
    assert not any(REPLACEMENT in text for text in said)


async def test_a_character_that_the_limit_cuts_is_replaced(ask: Ask) -> None:
    """JSON has no half characters."""
    body = prompt("👨‍👩‍👧‍👦\n" * 8, max_tokens=1)
    whole = await ask(body)
    assert whole == await ask(streamed(body))
    assert whole.reason == "length"
    whole.text.encode()


@pytest.mark.parametrize(
    "text", ["a\0b", "\0", "\0" * 50, "\x01\x1b[31m\x7f\x85", "\ufeff\u202e\u2066", "\U0010ffff"], ids=ascii
)
async def test_control_characters_do_no_harm(ask: Ask, text: str) -> None:
    for body in (chat(text, max_tokens=4), prompt(text, max_tokens=4)):
        said = await ask(body)
        assert said.reason in ("stop", "length")
        assert 1 <= said.usage["completion_tokens"] <= 4
        assert said == await ask(streamed(body))


async def test_a_nul_is_a_character_like_any_other(ask: Ask, tokenizer) -> None:
    with_nul, without = await ask(prompt("one\0two", max_tokens=1)), await ask(prompt("onetwo", max_tokens=1))
    assert with_nul.usage["prompt_tokens"] == len(tokenizer.encode("one\0two"))
    assert with_nul.usage["prompt_tokens"] > without.usage["prompt_tokens"]


async def test_texts_of_special_tokens_do_no_harm(ask: Ask, tokenizer, default_folder) -> None:
    added_tokens = json.loads((default_folder / "1" / "tokenizer.json").read_text())["added_tokens"]
    special = [token["content"] for token in added_tokens]
    assert len(special) > 2
    text = " ".join(special)
    for body in (chat(text, max_tokens=8), prompt(text, max_tokens=8), *(chat(one, max_tokens=2) for one in special)):
        said = await ask(body)
        assert said.reason in ("stop", "length")
        # In a chat they are text, which the model may well repeat.
        assert "messages" in body or not any(token in said.text for token in special)
    assert (await ask(prompt(text, max_tokens=1))).usage["prompt_tokens"] == len(tokenizer.encode(text))
