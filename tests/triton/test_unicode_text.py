"""Unicode text passes through the gateway and the model unchanged."""

import json

import pytest

from tests.triton.text_client import TextClient, chat, events, prompt, streamed, text_of
from tests.wire.gateway_server import RunningGateway

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]

SAMPLES = {
    "families": "👨‍👩‍👧‍👦 🏳️‍🌈 👩🏽‍🚀",
    "Chinese": "你好世界。今天天气很好。",
    "Japanese": "こんにちは世界。",
    "Hebrew": "שלום עולם",
    "Arabic": "مرحبا بالعالم",
    "mixed": "naïve 東京 🙂 Ωμέγα שלום",
}
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("language", SAMPLES)
async def test_characters_of_several_tokens_are_not_split(
    complete: TextClient, gateway: RunningGateway, language: str
) -> None:
    """The model repeats a line that the prompt repeats. Each of its characters takes several tokens."""
    line = SAMPLES[language]
    body = prompt(f"{line}\n" * 8, max_tokens=64, stop="\n")
    whole = await complete(body)
    assert whole.text == line
    assert whole.usage["completion_tokens"] > len(line.split())
    deltas: list[str] = []
    async with events(gateway, streamed(body)) as stream:
        async for event in stream:
            deltas += [text_of(choice) for choice in event["choices"]] if event != "[DONE]" else []
    assert "".join(deltas) == line
    assert not any(REPLACEMENT in text for text in deltas)


async def test_a_truncated_character_is_replaced(complete: TextClient) -> None:
    """A JSON string cannot hold a part of a character."""
    body = prompt("👨‍👩‍👧‍👦\n" * 8, max_tokens=1)
    whole = await complete(body)
    assert whole == await complete(streamed(body))
    assert whole.finish_reason == "length"
    whole.text.encode()


@pytest.mark.parametrize(
    "text", ["a\0b", "\0", "\0" * 50, "\x01\x1b[31m\x7f\x85", "\ufeff\u202e\u2066", "\U0010ffff"], ids=ascii
)
async def test_control_characters_are_accepted(complete: TextClient, text: str) -> None:
    for body in (chat(text, max_tokens=4), prompt(text, max_tokens=4)):
        completion = await complete(body)
        assert completion.finish_reason in ("stop", "length")
        assert 1 <= completion.usage["completion_tokens"] <= 4
        assert completion == await complete(streamed(body))


async def test_a_nul_character_is_tokenized(complete: TextClient, tokenizer) -> None:
    with_nul, without = await complete(prompt("one\0two", max_tokens=1)), await complete(prompt("onetwo", max_tokens=1))
    assert with_nul.usage["prompt_tokens"] == len(tokenizer.encode("one\0two"))
    assert with_nul.usage["prompt_tokens"] > without.usage["prompt_tokens"]


async def test_texts_of_special_tokens_are_accepted(complete: TextClient, tokenizer, default_folder) -> None:
    added_tokens = json.loads((default_folder / "1" / "tokenizer.json").read_text())["added_tokens"]
    special = [token["content"] for token in added_tokens]
    assert len(special) > 2
    text = " ".join(special)
    for body in (chat(text, max_tokens=8), prompt(text, max_tokens=8), *(chat(one, max_tokens=2) for one in special)):
        completion = await complete(body)
        assert completion.finish_reason in ("stop", "length")
        # In a chat they are text, and the model may repeat it.
        assert "messages" in body or not any(token in completion.text for token in special)
    assert (await complete(prompt(text, max_tokens=1))).usage["prompt_tokens"] == len(tokenizer.encode(text))
