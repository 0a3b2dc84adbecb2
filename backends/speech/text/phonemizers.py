"""Grapheme-to-phoneme: sentences in, phonemes in the alphabet of Kokoro out."""

import functools
import logging
import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import hibari
from hibari.g2p import G2P
from hibari.g2p.oov import OOV

from backends.serving.errors import InvalidValue

_log = logging.getLogger(__name__)

AMERICAN, BRITISH = "en-US", "en-GB"
LANGUAGES = (AMERICAN, BRITISH)
_ASSETS = Path(hibari.__file__).parent / "assets"
_REMEMBERED_WORDS = 4096


class Phonemizer(Protocol):
    """Reads sentences. Several threads may call it at the same time."""

    known_letters: frozenset[str]
    """Letters outside ASCII that it can read in unknown words."""

    def __call__(self, sentence: str, language: str) -> str:
        """Return the phonemes of a sentence, with its punctuation. Raises `InvalidValue`, naming `text`."""


class HibariPhonemizer:
    """The library hibari: a lexicon, a tagger of parts of speech, and a network for words that the lexicon lacks."""

    def __init__(self, languages: tuple[str, ...]) -> None:
        """Load the data of `languages` (of `LANGUAGES`), about 0.3 s each."""
        oov = {language: UnknownWords(_oov_file(language)) for language in languages}
        self._readers = {language: G2P(oov=oov[language], british=language == BRITISH) for language in languages}
        self.known_letters = frozenset.union(*(each.letters for each in oov.values()))

    def __call__(self, sentence: str, language: str) -> str:
        """Return the phonemes of a sentence; see `Phonemizer`."""
        reader = self._readers[language]
        try:
            return str(reader(sentence))
        except Exception:  # a rule that fails on one word must not lose the sentence
            _log.warning("A sentence of %d characters is read word by word.", len(sentence), exc_info=True)
        return " ".join(filter(None, (self._word(reader, word) for word in sentence.split())))

    @staticmethod
    def _word(reader: Any, word: str) -> str:
        with suppress(Exception):
            return str(reader(word))
        try:
            return str(reader(" ".join(word)))
        except Exception as error:
            raise InvalidValue(f"The word {word[:50]!r} cannot be read.", "text") from error


class UnknownWords:
    """The library's network for unknown words, which cuts words silently: here long words are read in parts."""

    def __init__(self, path: Path) -> None:
        """Load the network."""
        self._network = OOV(str(path))
        self.letters = frozenset(letter for letter in self._network.cin if ord(letter) > 127 and _is_letter(letter))
        self._read = functools.lru_cache(_REMEMBERED_WORDS)(self._network)

    def __call__(self, word: str) -> str | None:
        """Return the phonemes of a word; None if it has no letter that the network knows."""
        length = self._network.maxlen
        count = -(-len(word) // length)
        size = -(-len(word) // count)
        parts = [word[start : start + size] for start in range(0, len(word), size)]
        return "".join(filter(None, map(self._read, parts))) or None


def _is_letter(character: str) -> bool:
    return unicodedata.category(character) in ("Ll", "Lu", "Lo")


def _oov_file(language: str) -> Path:
    return _ASSETS / ("oov_gb.onnx" if language == BRITISH else "oov.onnx")
