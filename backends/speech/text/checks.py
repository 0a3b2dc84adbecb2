"""Refusal of texts that cannot be spoken, before any of them is spoken."""

import re
import unicodedata

from backends.serving.errors import InvalidValue
from backends.speech.text import scripts

GREEK = "".join(
    character
    for character in map(chr, range(0x370, 0x400))
    if unicodedata.category(character)[0] == "L" and unicodedata.name(character).startswith("GREEK ")
)
"""The Greek letters. A single one, as in formulas, is spoken by its name; a Greek word is refused."""

_GREEK_WORD = re.compile(rf"[{GREEK}]{{2,}}")
_MARKUP = re.compile(r"<\?xml\b|</?(?:speak|break|prosody|say-as|phoneme|emphasis)\b", re.IGNORECASE)
_OVERRIDES = "\u202a\u202b\u202c\u202d\u202e"
"""Characters that change the order in which a text is displayed: what is read differs from what is spoken."""
_ALLOWED_CONTROLS = "\t\n\v\f\r\x85"

PRONUNCIATION = re.compile(r"\[[^\[\]()\n]{1,100}\]\(/[^()\n]{1,200}/\)")
"""A word with its phonemes: `[Triton](/tɹˈItᵊn/)`. Its phonemes are no text and are not checked."""


def decode(data: bytes, limit: int) -> str:
    """Decode a text of at most `limit` characters. Raises `InvalidValue`, naming the input `text`."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidValue(f"The text is not UTF-8: {error.reason} at byte {error.start}.", "text") from None
    if len(text) > limit:
        raise InvalidValue(f"The text has {len(text)} characters; this model speaks {limit} at most.", "text")
    return text


def check(text: str, voice: str) -> None:
    """Refuse control characters, markup, and words of a script that the voice cannot speak.

    Raises `InvalidValue`, naming the input `text` and the words.
    """
    if not text.strip():
        raise InvalidValue("There is nothing to say: the text is empty or has only spaces.", "text")
    for character in sorted(set(text)):
        if unicodedata.category(character) == "Cc" and character not in _ALLOWED_CONTROLS:
            raise InvalidValue(_refusal(text, character, "a control character"), "text")
        if character in _OVERRIDES:
            raise InvalidValue(_refusal(text, character, "a control of the direction of writing"), "text")
    if found := _MARKUP.search(text):
        raise InvalidValue(f'SSML is not supported ("{found.group()}"): send plain text.', "text")
    spoken = PRONUNCIATION.sub(" ", text)
    words = scripts.foreign_words(spoken, GREEK + "µ")
    if greek := list(dict.fromkeys(_GREEK_WORD.findall(spoken))):
        words["Greek words"] = [word[:20] for word in greek[:3]]
    if words:
        raise InvalidValue(f"The voice {voice} cannot speak {scripts.describe(words)}.", "text")


def _refusal(text: str, character: str, kind: str) -> str:
    return f"The text has {kind}, U+{ord(character):04X}, at character {text.index(character)}."
