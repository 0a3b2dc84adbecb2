"""Word errors on spoken forms, and the matching of the starts of words."""

import pytest

from benchmarks.speech import read_sentences
from benchmarks.spoken_forms import cardinal, ordinal, readings, start_differences, word_errors


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (40, "forty"),
        (99, "ninety nine"),
        (110, "one hundred ten"),
        (2005, "two thousand five"),
        (1_203_017, "one million two hundred three thousand seventeen"),
    ],
)
def test_cardinal_numbers(number: int, words: str) -> None:
    assert cardinal(number) == words


def test_ordinal_numbers() -> None:
    assert [ordinal(number) for number in (1, 2, 3, 4, 5, 8, 9, 12, 20, 21, 30, 100)] == [
        "first",
        "second",
        "third",
        "fourth",
        "fifth",
        "eighth",
        "ninth",
        "twelfth",
        "twentieth",
        "twenty first",
        "thirtieth",
        "one hundredth",
    ]


@pytest.mark.parametrize(
    ("spoken", "written"),
    [
        ("three hundred and forty dollars", "$340"),
        ("three hundred forty dollars", "340 dollars."),
        ("three dollars and fifty cents", "$3.50"),
        ("three fifty", "$3.50"),
        ("one point two million dollars", "$1.2 million"),
        ("nine thirty am", "9:30 a.m."),
        ("nine thirty", "9.30"),
        ("nine point three zero", "9.30"),
        ("eight o'clock", "8:00"),
        ("ten oh five pm", "10:05 PM"),
        ("nineteen ninety eight", "1998"),
        ("nineteen oh five", "1905"),
        ("two thousand five", "2005"),
        ("nineteen hundred", "1900"),
        ("the nineteen nineties", "the 1990s"),
        ("march fourth", "March 4th"),
        ("march fourth", "March 4"),
        ("forty five percent", "45%"),
        ("five five five oh one two three", "555-0123"),
        ("doctor smith", "Dr. Smith"),
        ("saint james street", "St. James St."),
        ("twelve kilometers", "12 km"),
        ("twenty degrees celsius", "20 °C"),
        ("don't", "don\u2019t"),
        ("the usa", "The U.S.A."),
        ("gate b twelve", "Gate B12"),
    ],
)
def test_a_written_form_counts_as_its_spoken_form(spoken: str, written: str) -> None:
    assert word_errors(spoken, written)[0] == 0


def test_another_number_is_an_error() -> None:
    assert word_errors("three hundred and forty dollars", "$350") == (1, 4)
    assert word_errors("nineteen ninety eight", "1988") == (1, 3)
    assert word_errors("march fourth", "March 5") == (1, 2)
    assert word_errors("nine thirty am", "9:15 a.m.") == (1, 3)


def test_insertions_and_deletions_are_errors() -> None:
    assert word_errors("it was the best of times", "It was best of the times.") == (2, 6)
    assert word_errors("it was", "") == (2, 2)
    assert word_errors("", "Thank you.") == (2, 0)


def test_every_word_has_a_reading() -> None:
    assert readings("No. 5, please!") == [
        [("no",), ("number",)],
        [("five",), ("five",), ("five",), ("fifth",)],
        [("please",)],
    ]


def test_the_sentences_of_the_benchmark_are_what_is_spoken() -> None:
    sentences = read_sentences()
    assert len({written for written, _ in sentences}) == 50
    assert [written for written, spoken in sentences if word_errors(spoken, written)[0]] == []


def test_starts_of_words_that_both_texts_have() -> None:
    theirs = [(" Never", 0.0), (" tried,", 0.5), (" ever", 1.6), (" failed.", 2.0)]
    ours = [("Ever", 0.1), ("tried", 0.52), ("ever", 1.4), ("and", 1.8), ("failed.", 2.0)]
    assert start_differences(theirs, ours) == pytest.approx([0.02, -0.2, 0.0])
