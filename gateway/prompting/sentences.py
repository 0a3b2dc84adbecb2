"""Cuts a text into sentences while it is written, so that each can be spoken before the next is known."""

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
_COMMAS = ",;:\u2014\u2013"
_BREAK = re.compile(rf"[{_COMMAS}](?=\s)|\s")
_LINK = re.compile(r"!?\[([^\[\]\n]{0,200})\]\([^()\s]{0,2000}\)")
_MARKUP = re.compile(r"[*_`#~|<>]+")


class SentenceSplitter:
    """Takes the text of an answer piece by piece, and returns its sentences."""

    def __init__(self) -> None:
        self._text = ""

    def feed(self, text: str) -> list[str]:
        """Take the next piece of text. Return the sentences that are complete now."""
        self._text += text
        found, start, search = [], 0, 0
        while match := _END.search(self._text, search):
            piece = self._text[start : match.end()]
            search = match.end()
            if match[0].endswith((" ", "\t")) and (len(piece) < _MIN_CHARACTERS or _ABBREVIATION.search(piece)):
                continue
            found.append(piece)
            start = match.end()
        self._text = self._text[start:]
        while len(self._text) > MAX_CHARACTERS:
            cut = _last_break(self._text[:MAX_CHARACTERS])
            found.append(self._text[:cut])
            self._text = self._text[cut:]
        return [piece for piece in map(speakable, found) if piece]

    def finish(self) -> list[str]:
        """Return the rest, at the end of the text."""
        rest, self._text = speakable(self._text), ""
        return [rest] if rest else []


def speakable(text: str) -> str:
    """Return a text without Markdown's marks; empty if it has no letter and no digit."""
    plain = " ".join(_MARKUP.sub(" ", _LINK.sub(r"\1", text)).split())
    return plain if any(character.isalnum() for character in plain) else ""


def _last_break(text: str) -> int:
    """Return where to cut a text that is too long: after its last comma, else after its last space."""
    ends = [match.end() for match in _BREAK.finditer(text)]
    commas = [end for end in ends if text[end - 1] in _COMMAS]
    return (commas or ends or [len(text)])[-1]
