"""Cuts a text into sentences while it is written, so that each can be spoken before the next is known.

`backends/speech/text/sentences.py` cuts complete texts, by the rules of the library that reads them. The two share
nothing: here the text goes on, is Markdown, and may be for any model that speaks.
"""

import re

MAX_CHARACTERS = 300
"""Characters of a piece. A longer sentence is cut at a comma or a space."""
_MIN_CHARACTERS = 6
"""Characters of a piece that ends with a full stop: a shorter one is spoken with the next."""
_CLOSING = "\"'\u201d\u2019\u00bb)\\]*_"
_END = re.compile(rf"[.!?\u2026]+[{_CLOSING}]*\s+|[\u3002\uff01\uff1f]+[\u201d\u2019\u300d\u300f\uff09]*|\n+")
"""The end of a sentence: in scripts that write spaces, before one; in Chinese and Japanese, its full stop alone."""
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\"'])(?:mr|mrs|ms|dr|prof|st|jr|sr|vs|etc|no|fig|inc|e\.g|i\.e|cf|approx|[a-z])\.\s*$|^\s*\d+\.\s*$",
    re.IGNORECASE,
)
"""The end of a piece whose full stop ends no sentence: an abbreviation, an initial, or the number of a list."""
_ABBREVIATION_CHARACTERS = 16
"""Characters at the end of a piece that show it."""
_COMMAS = ",;:\u2014\u2013"
_BREAK = re.compile(rf"[{_COMMAS}](?=\s)|\s")
_LINK = re.compile(r"!?\[([^\[\]\n]{0,200})\]\([^()\s]{0,2000}\)")
_MARKUP = re.compile(r"[*_`#~|<>]+")


class SentenceSplitter:
    """Takes the text of an answer piece by piece, and returns its sentences."""

    def __init__(self, max_characters: int = MAX_CHARACTERS) -> None:
        """No sentence that is returned is longer than `max_characters`."""
        self._text = ""
        self._max_characters = min(max_characters, MAX_CHARACTERS)

    def feed(self, text: str) -> list[str]:
        """Take the next piece of text. Return the sentences that are complete now."""
        # In short slices: searching a long text for its ends can take time that grows with its square.
        return [
            sentence
            for at in range(0, len(text), self._max_characters)
            for sentence in self._feed_slice(text[at : at + self._max_characters])
        ]

    def _feed_slice(self, text: str) -> list[str]:
        self._text += text
        found: list[str] = []
        start = search = 0
        while match := _END.search(self._text, search):
            piece = self._text[start : match.end()]
            search = match.end()
            if match[0].endswith((" ", "\t")) and (len(piece) < _MIN_CHARACTERS or _ends_open(piece)):
                continue
            found += self._cut(piece)
            start = match.end()
        *long, self._text = self._cut(self._text[start:])
        found += long
        return [piece for piece in map(speakable, found) if piece]

    def _cut(self, piece: str) -> list[str]:
        """Return a piece in parts that are not too long. The last may be empty."""
        parts = []
        while len(piece) > self._max_characters:
            cut = _last_break(piece[: self._max_characters])
            parts.append(piece[:cut])
            piece = piece[cut:]
        return [*parts, piece]

    def finish(self) -> list[str]:
        """Return the rest, at the end of the text."""
        rest, self._text = speakable(self._text), ""
        return [rest] if rest else []


def _ends_open(piece: str) -> bool:
    """Return whether the full stop at the end of a piece belongs to an abbreviation, an initial or a number."""
    return _ABBREVIATION.search(piece[-_ABBREVIATION_CHARACTERS:]) is not None


def speakable(text: str) -> str:
    """Return a text without Markdown's marks; empty if it has no letter and no digit."""
    plain = " ".join(_MARKUP.sub(" ", _LINK.sub(r"\1", text)).split())
    return plain if any(character.isalnum() for character in plain) else ""


def _last_break(text: str) -> int:
    """Return where to cut a text that is too long: after its last comma, else after its last space."""
    ends = [match.end() for match in _BREAK.finditer(text)]
    commas = [end for end in ends if text[end - 1] in _COMMAS]
    return (commas or ends or [len(text)])[-1]
