"""Texts are refused by name or read as a whole: nothing vanishes, and no word takes long."""

import random
import time
import unicodedata

import pytest

from backends.serving.errors import InvalidValue
from backends.speech.text import checks
from backends.speech.text.phonemizers import AMERICAN, BRITISH, HibariPhonemizer
from backends.speech.text.pieces import pieces
from backends.speech.text.readings import MAX_DIGITS, MAX_RUN_CHARS, prepare


@pytest.fixture(scope="module")
def phonemizer() -> HibariPhonemizer:
    return HibariPhonemizer((AMERICAN, BRITISH))


def read(phonemizer: HibariPhonemizer, text: str, language: str = AMERICAN) -> str:
    checks.check(text, "Heart")
    return " ".join(pieces(prepare(text, phonemizer.known_letters), language, phonemizer, 400, 400))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "empty"),
        (" \n\t\u00a0", "empty"),
        ("你好, world", r'The voice Heart cannot speak Chinese characters \("你好"\)\.'),
        ("Привет, мир", r'Cyrillic letters \("Привет", "мир"\)'),
        ("שלום and مرحبا", r'Hebrew letters \("שלום"\) and Arabic letters \("مرحبا"\)'),
        ("こんにちは カタカナー", "Japanese kana"),
        ("안녕", "Korean letters"),
        ("नमस्ते", r'Devanagari letters \("नमस्ते"\)'),
        ("ὁ λόγος", r'Greek words \("λόγος"\)'),
        ("a\x00b", r"control character, U\+0000, at character 1"),
        ("\x1b[31mred", r"U\+001B"),
        ("abc \u202edef", r"direction of writing, U\+202E"),
        ('<speak version="1.0">hi</speak>', r"SSML is not supported \(\"<speak\"\)"),
        ('Wait <break time="1s"/> here', "SSML is not supported"),
    ],
)
def test_texts_that_cannot_be_spoken_are_refused_by_name(text: str, sentence: str) -> None:
    with pytest.raises(InvalidValue, match=sentence) as refused:
        checks.check(text, "Heart")
    assert refused.value.param == "text"


@pytest.mark.parametrize("text", ["😀", "👩‍👩‍👧‍👦 🏳️‍🌈", "...", "?!", "• ▲ ★", "\u200b\u200d", "「」"])
def test_a_text_with_nothing_to_say_is_refused(phonemizer: HibariPhonemizer, text: str) -> None:
    with pytest.raises(InvalidValue, match="nothing to say"):
        read(phonemizer, text)


def test_every_letter_and_number_is_read_or_refused(phonemizer: HibariPhonemizer) -> None:
    for character in map(chr, range(0x80, 0x10000)):
        category = unicodedata.category(character)
        if category == "Lm" or category[0] not in "LN":
            continue
        try:
            checks.check(character, "Heart")
            assert any(map(str.isalnum, prepare(character, phonemizer.known_letters))), character
        except InvalidValue as error:
            assert character in str(error), character


@pytest.mark.parametrize("data", [b"\xff", b"a\xed\xa0\x80"])
def test_bytes_that_are_no_text_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidValue, match="not UTF-8"):
        checks.decode(data, 100)
    with pytest.raises(InvalidValue, match="101 characters; this model speaks 100"):
        checks.decode("é".encode() * 101, 100)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("ＡＢＣ １２３", "ABC 123"),
        ("𝐇𝐞𝐥𝐥𝐨", "Hello"),
        ("cafe\u0301", "café"),
        ("Z̸̡a̸l̶g̷o̸ text", "Zalgo text"),
        ("Say ok 😀 now", "Say ok now"),
        ("tie\u0302\u0301ng Việt", "tieng Viet"),
        ("soft\u00adhyphen, \u2068isolated\u2069", "softhyphen, isolated"),
        ("1️⃣ one", "1 one"),
        ("a `word`", "a word"),
        ("٣ items", "3 items"),
        ("x ≤ 5", "x less than or equal to 5"),
        ("α and Δt", "alpha and delta t"),
        ("₿ 5", "bitcoin 5"),
        ("5 × 3 ≈ 15", "5 times 3 approximately 15"),
        ("3⅓", "3 and 1/3"),
        ("Chapter Ⅳ", "Chapter IV"),
        ("step ❷", "step 2"),
        ("Ðorđe", "ðorđe"),
        ("Ŋ", "ŋ"),
        ("ˈʒʊɹɪ", "zhuri"),
        ("a\u2028b", "a\nb"),
        ("1" * (MAX_DIGITS + 1), " ".join("1" * (MAX_DIGITS + 1))),
        ("3." + "14" * 20, "3 point " + " ".join("14" * 20)),
    ],
)
def test_unusual_characters_are_read_as_what_they_mean(phonemizer: HibariPhonemizer, text: str, same: str) -> None:
    assert read(phonemizer, text) == read(phonemizer, same)


def test_usual_texts_are_left_to_the_library(phonemizer: HibariPhonemizer) -> None:
    text = "Dr. Smith paid $3.50 (on 3/4/2021, at 5:30pm) for “two” naïve façades: 100% of 5km – £2…"
    assert prepare(text, phonemizer.known_letters) == text


def test_pronunciations_are_kept_as_they_are_written(phonemizer: HibariPhonemizer) -> None:
    assert read(phonemizer, "Say [hibari](/hibˈɑɹθi/) now.") == "sˈA hibˈɑɹθi nˈW."


def test_accents_differ(phonemizer: HibariPhonemizer) -> None:
    assert read(phonemizer, "Better.", AMERICAN) != read(phonemizer, "Better.", BRITISH)


def test_no_part_of_a_long_word_is_dropped(phonemizer: HibariPhonemizer) -> None:
    word = "blorptanvishkelmorondazifquetrablimpo"
    whole, start = read(phonemizer, word), read(phonemizer, word[:20])
    assert len(whole) > 1.5 * len(start)


LONG_WORDS = {
    "digits": "9" * 10_000,
    "numbers": "1,1." * 2500,
    "letters": "a" * 10_000,
    "hyphens": "a-" * 5000,
    "capitals": "aB" * 5000,
    "letters and digits": "1a" * 5000,
    "initials": "A.B." * 2500,
    "address": "http://" + "x/" * 5000,
    "brackets": "(" * 10_000 + "a",
    "dots": "." * 10_000 + "a",
    "apostrophes": "'" * 10_000 + "a",
    "symbols": "!@#$%^&*" * 1250,
    "accents": "\u0301" * 9_999 + "a",
    "pronunciation": "[a](/" + "b" * 10_000,
}


@pytest.mark.parametrize("text", LONG_WORDS.values(), ids=LONG_WORDS.keys())
def test_no_word_takes_long_to_read(phonemizer: HibariPhonemizer, text: str) -> None:
    checks.check(text, "Heart")
    prepared = prepare(text, phonemizer.known_letters)
    assert max(map(len, prepared.split())) <= MAX_RUN_CHARS
    started = time.process_time()
    first = next(pieces(prepared, AMERICAN, phonemizer, 400, 400))
    assert first and time.process_time() - started < 1  # some 50 ms


def test_any_text_is_read_or_refused(phonemizer: HibariPhonemizer) -> None:
    chance = random.Random(7)
    alphabet = "aAbz09  ..,,''\"-–—/\\()[]{}<>$£€%&*#@!?:;=+~^_|°½²éßøñ’“”\n😀α…" + "the of "
    for _ in range(300):
        text = "".join(chance.choice(alphabet) for _ in range(chance.randrange(1, 80)))
        try:
            assert read(phonemizer, text)
        except InvalidValue as error:
            assert error.param == "text"
