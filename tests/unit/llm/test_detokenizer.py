"""Incremental detokenization, and stop strings."""

import random

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from backends.llm.batching.detokenizer import Detokenizer
from backends.llm.batching.stop_strings import StopStrings

TEXTS = [
    "plain words",
    "family 👩‍👩‍👧‍👦 and flag 🇺🇦 and tone 👍🏽",
    "日本語と中文和한국어",
    "مرحبا بالعالم — שלום עולם",
    "é é ñ ż \u200b \ufeff \x00 \r\n\t",
    "a real � replacement character",
    "😀" * 50,
]


def detokenize(tokenizer, tokens, prompt=()):
    """Return the text of each token, and the text that was held back until the end."""
    detokenizer = Detokenizer(tokenizer, np.array(prompt, np.int64))
    return [detokenizer.feed(token) for token in tokens], detokenizer.flush()


@pytest.mark.parametrize("text", TEXTS)
def test_characters_split_across_tokens_are_returned_whole(tokenizer, text):
    tokens = tokenizer.encode(text).ids
    assert len(tokens) == len(text.encode())
    parts, rest = detokenize(tokenizer, tokens, tokenizer.encode("prompt: ").ids)
    assert "".join(parts) + rest == text
    if "\ufffd" not in text:
        assert rest == "" and not any("\ufffd" in part for part in parts)


def test_incomplete_character_at_the_end_becomes_a_replacement_character(tokenizer):
    tokens = tokenizer.encode("ab😀").ids
    assert detokenize(tokenizer, tokens[:-1]) == (["a", "b", "", "", ""], "\ufffd")


def test_invalid_bytes_do_not_hold_back_later_text(tokenizer):
    tokens = tokenizer.encode("😀").ids[1:2] * 100 + tokenizer.encode(" then 日本").ids
    parts, rest = detokenize(tokenizer, tokens)
    assert ("".join(parts) + rest).endswith(" then 日本")
    assert max(_lengths_of_empty_runs(parts)) < 12


def _lengths_of_empty_runs(parts):
    length = 0
    for part in parts:
        length = 0 if part else length + 1
        yield length


def test_special_tokens_are_hidden(tokenizer):
    tokens = [0, *tokenizer.encode("hi").ids, 2, *tokenizer.encode("!").ids]
    parts, rest = detokenize(tokenizer, tokens)
    assert "".join(parts) + rest == "hi!"


def test_special_tokens_are_shown_on_request(tokenizer):
    tokens = [0, *tokenizer.encode("hi").ids, 2]
    detokenizer = Detokenizer(tokenizer, np.array(tokenizer.encode("a").ids), show_special_tokens=True)
    names = [tokenizer.id_to_token(token) for token in (0, 2)]
    assert "".join(map(detokenizer.feed, tokens)) + detokenizer.flush() == f"{names[0]}hi{names[1]}"


def test_tokens_of_a_long_answer_are_dropped(tokenizer):
    detokenizer = Detokenizer(tokenizer, np.array([], np.int64))
    text = "日本語 " * 3000
    assert "".join(detokenizer.feed(token) for token in tokenizer.encode(text).ids) == text
    assert len(detokenizer._tokens) < 3000


def test_first_word_keeps_its_space_with_a_sentencepiece_decoder():
    words = ["<unk>", "▁the", "▁cat", "s", "<0xE2>", "<0x82>", "<0xAC>"]
    tokenizer = Tokenizer(models.BPE(vocab={word: place for place, word in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    assert detokenize(tokenizer, [2, 3, 4, 5, 6, 1], prompt=[1]) == ([" cat", "s", "", "", "€", " the"], "")


def feed(stops, parts):
    """Return the text that was passed on, and whether a stop string was found."""
    strings = StopStrings(stops)
    passed: list[str] = []
    for part in parts:
        text, stopped = strings.feed(part)
        passed.append(text)
        if stopped:
            return passed, True
    return [*passed, strings.flush()], False


@pytest.mark.parametrize(
    ("stops", "parts", "passed", "stopped"),
    [
        ((), ["a", "b"], ["a", "b", ""], False),
        (("END",), ["go E", "N", "D more"], ["go ", "", ""], True),
        (("END",), ["go E", "N", "d"], ["go ", "", "ENd", ""], False),
        (("END",), ["EEN", "D"], ["E", ""], True),
        (("END",), ["say EN"], ["say ", "EN"], False),
        (("aab",), ["a", "a", "a", "b"], ["", "", "a", ""], True),
        (("\n\n", "\nUser:"), ["x\n", "Use", "r: y"], ["x", "", ""], True),
        (("b", "abc"), ["a", "bc"], ["", "a"], True),
        (("x",), ["x"], [""], True),
        (("😀",), ["hi 😀 you"], ["hi "], True),
    ],
)
def test_text_is_passed_on_up_to_a_stop_string(stops, parts, passed, stopped):
    assert feed(stops, parts) == (passed, stopped)


def test_first_complete_stop_string_ends_the_text_for_any_token_boundaries():
    rng = random.Random(3)
    for _ in range(2000):
        text = "".join(rng.choice("ab") for _ in range(20))
        stops = tuple("".join(rng.choice("ab") for _ in range(rng.randrange(2, 6))) for _ in range(rng.randrange(1, 4)))
        parts: list[str] = []
        rest = text
        while rest:
            size = rng.randrange(1, 5)
            parts, rest = [*parts, rest[:size]], rest[size:]
        passed, stopped = feed(stops, parts)
        ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
        assert stopped == bool(ends)
        assert "".join(passed) == (text[: min(ends)[1]] if ends else text)
