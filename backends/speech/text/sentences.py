"""Sentences of a text, and pieces of sentences that the acoustic model speaks in one run.

The rules are those of the library, so that its numbers and abbreviations stay whole. The gateway, which imports no
backend, cuts answers of chats in `gateway/prompting/sentences.py` while they are written.
"""

import re
from collections.abc import Iterator

from hibari.tts import Hibari

MAX_SENTENCE_CHARS = 600
"""Longer sentences are cut before they are read: reading takes about 10 ms for so many characters."""

_MIN_CLAUSE_CHARS = 12
_CLAUSE_END = re.compile(r"(?<=[,;:—.!?…])\s+")
_WORD_END = re.compile(r"\s+")


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a text. A line break ends one, too. Very long ones are cut, if possible after a clause."""
    for line in text.split("\n"):
        for sentence in Hibari.split_sentences(line):
            yield from cut(sentence, MAX_SENTENCE_CHARS)


def cut(sentence: str, limit: int) -> Iterator[str]:
    """Yield a sentence, or its phonemes, in pieces of at most `limit` characters.

    Each piece has as many clauses as fit. A clause that does not fit is cut between words, a word anywhere.
    """
    while len(sentence) > limit:
        end = _last_end(_CLAUSE_END, sentence, limit) or _last_end(_WORD_END, sentence, limit) or limit
        yield sentence[:end].rstrip()
        sentence = sentence[end:].lstrip()
    if sentence:
        yield sentence


def first_clause_end(phonemes: str) -> int:
    """Return the index after the first clause; 0 if the sentence has one clause.

    Clauses of less than a word or two ("Well, ") are spoken together with the next one.
    """
    low = _MIN_CLAUSE_CHARS
    end = next((found.end() for found in _CLAUSE_END.finditer(phonemes) if found.start() >= low), 0)
    return end if len(phonemes) - end >= low else 0


def _last_end(pattern: re.Pattern[str], text: str, limit: int) -> int:
    return max((found.end() for found in pattern.finditer(text, 0, limit + 1) if found.start() <= limit), default=0)
