"""The program espeak-ng: a stand-in that answers as it does, and what it lacks."""

import shutil
import stat
from pathlib import Path

import pytest

from backends.serving.errors import EngineFailed
from backends.speech.text.espeak import PROGRAMS, EspeakPhonemizer, convert

# What espeak-ng 1.51 answers to "hello there" with --ipa --tie=^, by its voice.
ANSWERS = {"en-us": "həlˈo^ʊ ðˈɛɹ", "en-gb": "həlˈə^ʊ ðˈe^ə"}


def write_program(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.fixture
def program(tmp_path: Path) -> str:
    cases = "; ".join(f"*{voice}*) echo '{answer}' ;" for voice, answer in ANSWERS.items())
    return write_program(tmp_path / "espeak-ng", f'cat > {tmp_path}/given; case "$*" in {cases}; esac')


def test_the_parts_of_a_sentence_are_read_and_its_marks_kept(program: str, tmp_path: Path) -> None:
    phonemizer = EspeakPhonemizer([program])
    assert phonemizer("hello there, hello there.", "en-US") == "həlˈO ðˈɛɹ, həlˈO ðˈɛɹ."
    assert (tmp_path / "given").read_text() == "hello there"
    assert phonemizer("(hello there!)", "en-GB") == "(həlˈQ ðˈɛː!)"


def test_phonemes_are_converted_to_the_alphabet_of_kokoro() -> None:
    assert convert("t^ʃˈa^ɪld d^ʒˈɔ^ɪ nˈa^ʊ", "en-US") == "ʧˈIld ʤˈY nˈW"
    assert convert("bˈɜːd", "en-US") == "bˈɜɹd"
    assert convert("bˈɜːd", "en-GB") == "bˈɜːd"
    assert convert("bˈʌʔn̩", "en-US") == "bˈʌtn"


def test_an_absent_program_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(FileNotFoundError, match=r"none of no-such-program is on PATH\. Install espeak-ng"):
        EspeakPhonemizer(["no-such-program"])


def test_a_failing_program_fails_the_request(tmp_path: Path) -> None:
    with pytest.raises(EngineFailed, match="failed"):
        EspeakPhonemizer([write_program(tmp_path / "broken", "exit 3")])("hello", "en-US")


@pytest.mark.skipif(not any(map(shutil.which, PROGRAMS)), reason="espeak-ng is not installed")
def test_the_real_program() -> None:
    phonemizer = EspeakPhonemizer()
    assert phonemizer("Hello there, you.", "en-US") == "həlˈO ðˈɛɹ, jˈu."
    assert phonemizer("Dr. Smith paid 3.50 for better cheese.", "en-US").count(".") == 1
