"""Grapheme-to-phoneme by the program espeak-ng, which is under the GPL and no part of this project.

The conversion of its phonemes to the alphabet of Kokoro is that of misaki 0.9.4 (Apache-2.0, hexgrad).
"""

import re
import shutil
import subprocess
from collections.abc import Sequence

from hibari.g2p.normalize import normalize

from backends.serving.errors import EngineFailed
from backends.speech.text.phonemizers import BRITISH

PROGRAMS = ("espeak-ng", "espeak")
_SECONDS = 10.0
_VOICES = {"en-US": "en-us", "en-GB": "en-gb"}
_MARKS = re.compile(r'([;:,.!?…]+(?=[\s"”)]|$)|[—"“”()]+)')
_CONVERSIONS = (
    ("ʔˌn\u0329", "tn"),
    ("ʔn\u0329", "tn"),
    ("a^ɪ", "I"),
    ("a^ʊ", "W"),
    ("d^ʒ", "ʤ"),
    ("e^ɪ", "A"),
    ("t^ʃ", "ʧ"),
    ("ɔ^ɪ", "Y"),
    ("ə^l", "ᵊl"),
    ("ʔn", "tn"),
    ("ɚɹ", "əɹ"),
    ("ʲo", "jo"),
    ("ʲə", "jə"),
    ("e", "A"),
    ("r", "ɹ"),
    ("x", "k"),
    ("ç", "k"),
    ("ɐ", "ə"),
    ("ɚ", "əɹ"),
    ("ɬ", "l"),
    ("ʔ", "t"),
    ("ʲ", ""),
    ("\u0303", ""),
)
_BRITISH = (("e^ə", "ɛː"), ("i^ə", "ɪə"), ("iə", "ɪə"), ("ə^ʊ", "Q"))
_AMERICAN = (("o^ʊ", "O"), ("ɜːɹ", "ɜɹ"), ("ɜː", "ɜɹ"), ("ɪə", "iə"), ("ː", ""), ("ɾ", "T"))
_SYLLABIC = re.compile(r"(\S)\u0329")


class EspeakPhonemizer:
    """Runs espeak-ng for each part of a sentence between two marks."""

    known_letters: frozenset[str] = frozenset()

    def __init__(self, programs: Sequence[str] = PROGRAMS) -> None:
        """Find the program. Raises `FileNotFoundError` with a sentence that says what to do."""
        found = next(filter(None, map(shutil.which, programs)), None)
        if found is None:
            raise FileNotFoundError(
                f"The parameter phonemizer is espeak, and none of {', '.join(programs)} is on PATH. Install espeak-ng, "
                "which is under the GPL, or set the parameter to hibari."
            )
        self._program = found

    def __call__(self, sentence: str, language: str) -> str:
        """Return the phonemes of a sentence; see `Phonemizer`."""
        parts = [
            part if _MARKS.fullmatch(part) else convert(self._run(part, _VOICES[language]), language)
            for part in _MARKS.split(normalize(sentence))
            if part.strip()
        ]
        joined = "".join(part if _MARKS.fullmatch(part) and part[0] not in "(“" else f" {part}" for part in parts)
        return joined.replace("( ", "(").replace("“ ", "“").strip()

    def _run(self, text: str, voice: str) -> str:
        command = [self._program, "-q", "--ipa", "--tie=^", "-v", voice, "--stdin"]
        try:
            done = subprocess.run(
                command, input=text.strip(), capture_output=True, text=True, timeout=_SECONDS, check=True
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise EngineFailed(f"{self._program} failed: {str(error)[:300]}") from error
        return " ".join(done.stdout.split())


def convert(phonemes: str, language: str) -> str:
    """Return espeak's phonemes, with ties written as `^`, in the alphabet of Kokoro."""
    is_british = language == BRITISH
    for old, new in (*(_BRITISH if is_british else ()), *_CONVERSIONS):
        phonemes = phonemes.replace(old, new)
    phonemes = _SYLLABIC.sub(r"ᵊ\1", phonemes).replace("\u0329", "")
    for old, new in () if is_british else _AMERICAN:
        phonemes = phonemes.replace(old, new)
    return phonemes.replace("^", "")
