"""The scripts of a text that a voice of Latin script cannot speak, and the names of its unusual characters."""

import unicodedata
from collections.abc import Iterator

_NAMES = {
    "CJK": "Chinese characters",
    "IDEOGRAPHIC": "Chinese characters",
    "HIRAGANA": "Japanese kana",
    "KATAKANA": "Japanese kana",
    "KATAKANA-HIRAGANA": "Japanese kana",
    "HANGUL": "Korean letters",
    "MODIFIER": "",
}
"""Names of scripts, by the first word of the Unicode names of their characters; others are "Cyrillic letters"."""

_MAX_QUOTED_CHARS = 20
_MAX_QUOTED_WORDS = 3
_MAX_NAMED_SCRIPTS = 3


def script_of(character: str) -> str:
    """Return the name of the script of a letter, such as "Cyrillic letters"; empty for Latin and for other symbols."""
    if not unicodedata.category(character).startswith("L"):
        return ""
    decomposed = unicodedata.normalize("NFKC", character)
    first = unicodedata.name(decomposed[0], "UNKNOWN").split()[0]
    if first in ("LATIN", "DIGIT") or decomposed.isascii():
        return ""
    return _NAMES.get(first, f"{first.title()} letters")


def foreign_words(text: str, allowed: str = "") -> dict[str, list[str]]:
    """Return a few words of each script other than Latin, by the name of the script.

    Characters in `allowed` count as Latin.
    """
    scripts = {character: script_of(character) for character in set(text) if not character.isascii()}
    if not any(script and character not in allowed for character, script in scripts.items()):
        return {}
    found: dict[str, list[str]] = {}
    for script, word in _runs(text, {each: "" if each in allowed else script for each, script in scripts.items()}):
        words = found.setdefault(script, [])
        if len(words) < _MAX_QUOTED_WORDS and word not in words:
            words.append(word)
    return found


def describe(found: dict[str, list[str]]) -> str:
    """Return `Chinese characters ("你好") and Cyrillic letters ("Привет", "мир")`."""
    parts = [
        f"{script} ({', '.join(chr(34) + word + chr(34) for word in words)})"
        for script, words in list(found.items())[:_MAX_NAMED_SCRIPTS]
    ]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _runs(text: str, scripts: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield each run of letters of one script other than Latin, cut to a length that a message can quote."""
    script, start = "", 0
    for index, character in enumerate(text):
        here = scripts.get(character, "")
        if not here and script and unicodedata.category(character).startswith("M"):
            continue  # a mark belongs to the letter before it
        if here != script:
            if script:
                yield script, text[start:index][:_MAX_QUOTED_CHARS]
            script, start = here, index
    if script:
        yield script, text[start:][:_MAX_QUOTED_CHARS]
