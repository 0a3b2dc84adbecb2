"""Log probabilities and text offsets of completions: equal in whole and streamed responses, for any prompt."""

import random
import re
from typing import Any

import pytest

from tests.triton.text_client import Body, events, prompt, streamed, text_of
from tests.wire.gateway_server import RunningGateway

pytestmark = [pytest.mark.triton, pytest.mark.asyncio(loop_scope="session")]

KEYS = ("tokens", "token_logprobs", "top_logprobs", "text_offset")
PIECES = [
    "日本",
    "👍🏽",
    "👨\u200d👩\u200d👧",
    "é",
    "e\u0301",
    " the",
    "\n",
    "a",
    "𝄞",
    "שלום",
    "\u3000",
    " 東京",
    "🏳️\u200d🌈",
    "0",
]


def some_text(seed: int) -> str:
    chance = random.Random(seed)
    return "".join(chance.choices(PIECES, k=chance.randint(1, 6))) + chr(chance.randint(0x4E00, 0x9FFF))


async def choices(gateway: RunningGateway, body: Body) -> list[dict[str, Any]]:
    """Return the text of each choice and the log probabilities of its tokens."""
    if "stream" not in body:
        response = await gateway.http.post("/v1/completions", json=body)
        assert response.status_code == 200, response.text
        return [{"text": c["text"], **c["logprobs"]} for c in response.json()["choices"]]
    found: dict[int, dict[str, Any]] = {}
    async with events(gateway, body) as stream:
        async for event in stream:
            for choice in event["choices"] if event != "[DONE]" else ():
                one = found.setdefault(choice["index"], {"text": "", **{key: [] for key in KEYS}})
                one["text"] += text_of(choice)
                for key, values in (choice["logprobs"] or {}).items():
                    one[key] += values
    return [found[index] for index in sorted(found)]


@pytest.fixture
def tolerance(pytestconfig: pytest.Config) -> float:
    """The difference of two log probabilities that count as equal: batches of other engines round differently."""
    return 0.0 if pytestconfig.getoption("--engine") == "onnxruntime" else 1e-3


def equal(one: Any, other: Any, tolerance: float) -> bool:
    """Return whether two values are equal, but for a difference of their numbers."""
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= tolerance
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key], tolerance) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(equal(*pair, tolerance) for pair in zip(one, other, strict=True))
    return bool(one == other)


def data(name: str) -> bytes:
    return (
        bytes.fromhex(name[6:].replace("\\x", "")) if re.fullmatch(r"bytes:(\\x[0-9a-f]{2})+", name) else name.encode()
    )


def check(choice: dict[str, Any], prompt_text: str | None) -> None:
    parts = [data(name) for name in choice["tokens"]]
    text = choice["text"]
    assert b"".join(parts).decode(errors="replace") == text
    assert prompt_text is None or text.startswith(prompt_text)
    assert choice["token_logprobs"][0] is None and choice["top_logprobs"][0] is None
    assert all(value <= 0 for value in choice["token_logprobs"][1:])
    at = 0
    for part, offset in zip(parts, choice["text_offset"], strict=True):
        whole = b"".join(parts)[:at].decode(errors="ignore")
        assert offset == len(whole), choice
        at += len(part)


@pytest.mark.parametrize("seed", range(6))
async def test_an_echo_of_any_text(gateway: RunningGateway, tokenizer: Any, seed: int, tolerance: float) -> None:
    text = some_text(seed)
    ids = tokenizer.encode(text)
    for given, n in ((text, 1), (ids, 1), (text, 2)):
        body = prompt("", max_tokens=2, echo=True, logprobs=1, n=n, seed=seed, temperature=0.5) | {"prompt": given}
        whole = await choices(gateway, body)
        assert equal(whole, await choices(gateway, streamed(body)), tolerance)
        assert len(whole) == n
        for choice in whole:
            check(choice, text)
            assert len(choice["tokens"]) >= len(ids)


async def test_a_prompt_of_tokens_that_is_cut_within_characters(
    gateway: RunningGateway, tokenizer: Any, tolerance: float
) -> None:
    """The text begins and ends within a character."""
    ids = tokenizer.encode("𝄞é日𝄞")
    assert tokenizer.decode(ids[:1]) == tokenizer.decode(ids[-1:]) == "\ufffd"
    body = prompt("", max_tokens=1, echo=True, logprobs=0) | {"prompt": ids[1:-1]}
    whole = await choices(gateway, body)
    assert equal(whole, await choices(gateway, streamed(body)), tolerance)
    assert whole[0]["text_offset"][0] == 0 and len(whole[0]["tokens"]) >= len(ids) - 2


async def test_several_prompts(gateway: RunningGateway, tolerance: float) -> None:
    texts = ["日本", "👍🏽", "the"]
    body = prompt("", max_tokens=1, echo=True, logprobs=0) | {"prompt": texts}
    whole = await choices(gateway, body)
    assert equal(whole, await choices(gateway, streamed(body)), tolerance)
    for choice, text in zip(whole, texts, strict=True):
        check(choice, text)
