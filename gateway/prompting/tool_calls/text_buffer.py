"""Read a text that is still arriving.

A grammar is a generator over a `Source`: it yields pieces, and `None` where it has read everything and needs more. So a
grammar is written as if the whole text were there, and its state is the place where it stands. What is read between
`mark` and `rewind` can be read again; the cost of holding it is linear in its length however it arrives.
"""

import re
from collections.abc import Generator
from typing import TypeAlias, TypeVar

Result = TypeVar("Result")
Output = TypeVar("Output")
Parse: TypeAlias = Generator[Output | None, None, Result]
Read: TypeAlias = Generator[None, None, Result]

WHITESPACE = re.compile(r"[ \t\r\n]*")


class TextBuffer:
    """The part of a text that has arrived and is not yet read, and what may have to be read again."""

    __slots__ = ("_from", "_kept", "_marked", "at", "ended", "text")

    def __init__(self) -> None:
        self.text = ""
        self.at = 0
        self.ended = False
        self._kept: list[str] = []
        self._from = 0
        self._marked = False

    def push(self, text: str) -> None:
        """Append what arrived."""
        if self._marked:
            self._kept.append(self.text[self._from : self.at])
            self._from = 0
        self.text = self.text[self.at :] + text
        self.at = 0

    def mark(self) -> None:
        """Remember this place, and no earlier one."""
        self._kept = []
        self._from = self.at
        self._marked = True

    def release(self) -> None:
        """Forget the marked place: what was read since is settled."""
        self._kept = []
        self._marked = False

    def rewind(self) -> None:
        """Go back to the marked place, and forget it."""
        if self._kept:
            self.text = "".join(self._kept) + self.text[self._from :]
            self._from = 0
        self.at = self._from
        self.release()

    def has_more(self) -> Read[bool]:
        """Wait for a character to read; false at the end of the text."""
        while self.at == len(self.text):
            if self.ended:
                return False
            yield
        return True

    def peek(self) -> Read[str]:
        """Return the next character without reading it; empty at the end of the text."""
        return self.text[self.at] if (yield from self.has_more()) else ""

    def read_one(self, characters: str, parts: list[str] | None = None) -> Read[bool]:
        """Read the next character if it is one of `characters`, and append it to `parts`."""
        if not (yield from self.has_more()) or self.text[self.at] not in characters:
            return False
        if parts is not None:
            parts.append(self.text[self.at])
        self.at += 1
        return True

    def read_word(self, word: str, parts: list[str] | None = None) -> Read[bool]:
        """Read `word`, as far as it is there; false unless all of it is."""
        for character in word:
            if not (yield from self.read_one(character, parts)):
                return False
        return True

    def read_run(self, pattern: re.Pattern[str], parts: list[str] | None = None) -> Read[bool]:
        """Read all that `pattern`, the repetition of one class of characters, matches; false if that is nothing."""
        some = False
        while (yield from self.has_more()):
            end = _end(pattern, self.text, self.at)
            if end == self.at:
                break
            some = True
            if parts is not None:
                parts.append(self.text[self.at : end])
            self.at = end
            if end < len(self.text):
                break
        return some

    def skip_whitespace(self, parts: list[str] | None = None) -> Read[None]:
        """Read white space."""
        yield from self.read_run(WHITESPACE, parts)


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return at if found is None else found.end()
