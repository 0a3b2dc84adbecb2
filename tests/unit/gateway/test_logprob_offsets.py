"""Offsets of tokens in the text of a completion."""

from collections.abc import AsyncGenerator, Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dialects.openai.wire.logprobs import CompletionLogprobsRenderer
from gateway.operations.complete import share_prompt_logprobs
from gateway.operations.text import EMPTY_DELTA, Delta, Finish, Logprob, TextEvent, TokenLogprob, Usage

TEXT = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("aé日本👍🏽\u200d\u0301\0\n")), max_size=12)


def token(data: bytes, *, prompt: bool = False, first: bool = False, hidden: bool = False) -> TokenLogprob:
    return TokenLogprob(
        Logprob(data.decode(errors="replace"), None if first else -1.0, data), is_prompt=prompt, is_hidden=hidden
    )


def split(data: bytes, places: Iterable[int]) -> list[bytes]:
    """The parts of some bytes between places, which may lie within a character."""
    return [
        data[a:b] for a, b in pairwise(sorted({0, len(data), *(position % (len(data) + 1) for position in places)}))
    ]


def joined(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    joined: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for part in parts:
        for key, values in part.items():
            joined[key] += values
    return joined


@given(
    TEXT.filter(bool), TEXT, st.lists(st.integers(0, 99)), st.lists(st.integers(0, 99)), st.booleans(), st.booleans()
)
def test_token_offsets_do_not_depend_on_the_split_of_events(
    prompt: str, answer: str, places: list[int], events: list[int], begun: bool, known: bool
) -> None:
    texts = [token(part, prompt=True) for part in split(prompt.encode(), places)]
    tokens = [token(b"<s>", prompt=True, first=True), *texts] if begun else texts
    if not begun:
        tokens[0] = token(tokens[0].chosen.data, prompt=True, first=True)
    tokens += [token(part) for part in split(answer.encode(), places)]
    shown = prompt if known or not begun else f"<s>{prompt}"  # the model shows what token ids stand for
    whole = CompletionLogprobsRenderer(prompt if known else None).render(tokens)
    renderer = CompletionLogprobsRenderer(prompt if known else None)
    bounds = sorted({0, len(tokens), *(position % (len(tokens) + 1) for position in events)})
    assert joined(renderer.render(tokens[a:b]) for a, b in pairwise(bounds)) == whole
    starts = accumulate((len(t.chosen.data) for t in (tokens[1:] if begun and known else tokens)), initial=0)
    data = (shown + answer).encode()
    within = [len((data[:start] + b"x").decode(errors="ignore")) - 1 for start in starts][:-1]
    assert whole["text_offset"] == ([0, *within] if begun and known else within)
    assert whole["token_logprobs"] == [None] + [-1.0] * (len(tokens) - 1) and whole["top_logprobs"][0] is None


def test_a_prompt_that_begins_inside_a_character() -> None:
    first, *others = [bytes([byte]) for byte in "本".encode()]
    tokens = [token(first, prompt=True, first=True), *(token(byte, prompt=True) for byte in others), token(b" x")]
    rendered = CompletionLogprobsRenderer("本").render(tokens)
    assert rendered["tokens"] == ["bytes:\\xe6", "bytes:\\x9c", "bytes:\\xac", " x"]
    assert rendered["text_offset"] == [0, 0, 0, 1]


@pytest.mark.parametrize(
    ("prompt", "data", "offsets"),
    [
        ("Hi you", [b"<s>", b" Hi", b" you"], [0, 0, 2]),  # SentencePiece
        ("HI YOU", [b"hi", b" you"], [0, 2]),  # what a tokenizer has changed
        ("<s>Hi", [b"<s>", b"Hi"], [0, 3]),  # what the caller has written
    ],
)
def test_prompt_tokens_with_another_spelling(prompt: str, data: Sequence[bytes], offsets: list[int]) -> None:
    tokens = [token(part, prompt=True, first=position == 0) for position, part in enumerate(data)]
    rendered = CompletionLogprobsRenderer(prompt).render([*tokens, token(b"!"), token(b"?")])
    assert rendered["text_offset"] == [*offsets[:-1], rendered["text_offset"][-3], len(prompt), len(prompt) + 1]


@given(st.lists(st.sampled_from([*(bytes([b]) for b in (97, 0x80, 0xBF, 0xC3, 0xE6, 0xED, 0xEF, 0xF0)), b"\xef\xbf"])))
def test_a_broken_character_is_as_long_as_what_is_shown_for_it(parts: list[bytes]) -> None:
    data = b"".join(parts)
    # Characters, and what cannot be one, each with its bytes.
    sizes = [1 if c == "\ufffd" else len(c.encode()) for c in data.decode(errors="replace")]
    rendered = CompletionLogprobsRenderer().render(map(token, parts))["text_offset"]
    for begin, position in zip(accumulate(map(len, parts), initial=0), rendered, strict=False):
        before, after = data[:begin].decode(errors="replace"), data[begin:].decode(errors="replace")
        assert position in (len(before), len(before) - 1), (data, begin)
        # A token within a character leaves both of its parts broken.
        split = len(before) + len(after) > len(sizes) or (before + after) != data.decode(errors="replace")
        assert position == len(before) - split, (data, begin, rendered)


def test_hidden_tokens_take_no_offset() -> None:
    rendered = CompletionLogprobsRenderer().render([token(b"a"), token(b"<|end|>", hidden=True), token(b"b")])
    assert (rendered["tokens"], rendered["text_offset"]) == (["a", "<|end|>", "b"], [0, 1, 1])


@pytest.mark.asyncio
@pytest.mark.parametrize("ahead", [False, True])
async def test_each_answer_has_the_tokens_of_the_prompt(ahead: bool) -> None:
    prompt = (token(b"p", prompt=True, first=True), token(b"q", prompt=True))
    zero: list[TextEvent] = [Delta(0, "pqa", 1, (*prompt, token(b"a"))), Finish(0, "stop")]
    one: list[TextEvent] = [
        Delta(1, "pqb", 1, (token(b"b"),)),
        EMPTY_DELTA,
        Delta(1, "c", 1, (token(b"c"),)),
        Finish(1, "length"),
    ]

    async def events_of_answer() -> AsyncGenerator[TextEvent]:
        for event in [*one, *zero] if ahead else [*zero, *one]:
            yield event
        yield Usage(2, 3)

    events: list[TextEvent] = [event async for event in share_prompt_logprobs(events_of_answer(), 2)]
    for index, expected in enumerate(["pqa", "pqbc"]):
        own = [event for event in events if isinstance(event, Delta | Finish) and event.index == index]
        own = [event for event in own if event is not EMPTY_DELTA]
        assert isinstance(own[-1], Finish) and sum(isinstance(event, Finish) for event in own) == 1
        deltas = [event for event in own if isinstance(event, Delta)]
        assert "".join(delta.text for delta in deltas) == expected
        assert b"".join(t.chosen.data for delta in deltas for t in delta.logprobs).decode() == expected
    assert events[-1] == Usage(2, 3)
    assert len(events) >= 7  # each response has brought an event
