"""Sentences, and the pieces of them that are spoken in one run."""

import pytest

from backends.serving.errors import InvalidValue
from backends.speech.text.pieces import pieces
from backends.speech.text.sentences import MAX_SENTENCE_CHARS, cut, first_clause_end, sentences
from tests.unit.speech.speech_stand_ins import Spelling


def test_sentences_end_at_marks_and_lines_but_not_after_titles() -> None:
    text = 'Dr. Smith left. "Why?" she asked.\nA line\n\n1. item!'
    assert list(sentences(text)) == ["Dr. Smith left.", '"Why?" she asked.', "A line", "1. item!"]


def test_a_text_without_marks_is_cut_between_words() -> None:
    text = "word " * 1000
    found = list(sentences(text))
    assert max(map(len, found)) <= MAX_SENTENCE_CHARS
    assert " ".join(found).split() == text.split()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one, two, three", ["one, two,", "three"]),
        ("one two three", ["one two", "three"]),
        ("onetwothreefour", ["onetwothre", "efour"]),
        ("short", ["short"]),
        ("", []),
    ],
)
def test_cuts_prefer_clauses_then_words(text: str, expected: list[str]) -> None:
    assert list(cut(text, 10)) == expected


def test_the_first_clause_is_one_that_can_stand_alone() -> None:
    assert first_clause_end("Well, this is a clause, and another follows it.") == len("Well, this is a clause, ")
    assert first_clause_end("This has one clause alone.") == 0
    assert first_clause_end("This is almost the end, so.") == 0


def test_only_a_long_first_sentence_is_cut_after_its_first_clause() -> None:
    first = "While it was raining, they waited at the station."
    assert list(pieces(f"{first} {first}", "en-US", Spelling(), 400, 30)) == [first[:21], first[22:], first]
    assert list(pieces(f"{first} {first}", "en-US", Spelling(), 400, 100)) == [first, first]


def test_sentences_are_read_when_they_are_asked_for() -> None:
    phonemizer = Spelling()
    stream = pieces("One is here. Two is here. !!! Three is here.", "en-GB", phonemizer, 400, 400)
    assert (next(stream), phonemizer.read) == ("One is here.", [("One is here.", "en-GB")])
    assert list(stream) == ["Two is here.", "Three is here."], "marks alone are no piece"


def test_a_text_of_marks_is_refused_at_its_end() -> None:
    with pytest.raises(InvalidValue, match="nothing to say"):
        list(pieces("!!! ...", "en-US", Spelling(), 400, 400))
