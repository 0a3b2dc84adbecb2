"""Texts cut into sentences while they are written."""

import random
import time

import pytest

from gateway.prompting.sentences import MAX_CHARACTERS, SentenceSplitter, speakable


def split(text: str, *sizes: int) -> list[str]:
    """Feed `text` in pieces of `sizes`, the last of which repeats."""
    splitter = SentenceSplitter()
    found, at, left = [], 0, list(sizes)
    while at < len(text):
        size = left.pop(0) if len(left) > 1 else left[0]
        found += splitter.feed(text[at : at + size])
        at += size
    return found + splitter.finish()


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One sentence. Another one! A third?", ["One sentence.", "Another one!", "A third?"]),
        ("Dr. Smith paid 3.50 to J. Doe. Then he left.", ["Dr. Smith paid 3.50 to J. Doe.", "Then he left."]),
        ("Use tools, e.g. a saw. Be careful.", ["Use tools, e.g. a saw.", "Be careful."]),
        ("It was 1999. She sang.", ["It was 1999.", "She sang."]),
        ("Hi. There is more. End", ["Hi. There is more.", "End"]),
        ("1. Bread\n2. Milk\n", ["1. Bread", "2. Milk"]),
        ('He said "Stop it!" Then he stopped.', ['He said "Stop it!"', "Then he stopped."]),
        ("你好。再见！好", ["你好。", "再见！", "好"]),  # noqa: RUF001
        ("**Bold** words, `code` and [a link](https://a.example/b).", ["Bold words, code and a link."]),
        ("---\n🎉🎉\n\nWords here.\n", ["Words here."]),
        ("", []),
    ],
)
@pytest.mark.parametrize("sizes", [(1,), (3, 1, 7), (1000,)], ids=str)
def test_sentences_do_not_depend_on_the_pieces(text: str, sentences: list[str], sizes: tuple[int, ...]) -> None:
    assert split(text, *sizes) == sentences


def test_a_sentence_is_known_as_soon_as_the_next_one_begins() -> None:
    splitter = SentenceSplitter()
    assert splitter.feed("The first one.") == []
    assert splitter.feed(" ") == ["The first one."]


@pytest.mark.parametrize("word", ["word ", "word, ", "x", "字"])
def test_long_sentences_are_cut_between_words(word: str) -> None:
    text = word * 1000
    pieces = split(text, 17)
    assert all(0 < len(piece) <= MAX_CHARACTERS for piece in pieces)
    assert "".join(pieces).replace(" ", "") == text.replace(" ", "")
    if word == "word ":
        assert all(piece.split() == ["word"] * len(piece.split()) for piece in pieces)


def test_a_model_may_take_shorter_texts_only() -> None:
    splitter = SentenceSplitter(40)
    pieces = splitter.feed("This sentence is longer than forty characters are. " * 5) + splitter.finish()
    assert max(map(len, pieces)) <= 40
    assert " ".join(pieces) == " ".join(["This sentence is longer than forty characters are."] * 5)


def test_no_text_is_lost() -> None:
    chance = random.Random(1)
    for _ in range(200):
        text = "".join(chance.choice(["a", "bc", " ", ". ", "! ", "\n", "Dr. ", "3.5", "。", ", "]) for _ in range(200))
        pieces = split(text, *(chance.randrange(1, 9) for _ in range(300)))
        kept = "".join(pieces).replace(" ", "")
        assert [c for c in kept if c.isalnum()] == [c for c in text if c.isalnum()]


def test_the_time_is_linear() -> None:
    started = time.process_time()
    for hostile in (".", "[", "!" + "[a]", ". ", "a. ", "\n"):
        split(hostile * (100_000 // len(hostile)), 100_000)
    assert time.process_time() - started < 10


def test_texts_without_words_are_not_speakable() -> None:
    assert [speakable(text) for text in ("***", "…", " \n", "👍🏽", "- 5")] == ["", "", "", "", "- 5"]
