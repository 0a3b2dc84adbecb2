"""Readings of characters, numbers and words that the grapheme-to-phoneme library would drop, misread or fail on.

The library silently drops characters that it does not know, fails on a number of more than 36 digits, and needs time
that grows with the cube of the length of a word. It reads what `prepare` returns in about a millisecond a sentence.
"""

import re
import unicodedata
from fractions import Fraction

from hibari.g2p import SUBTOKEN_RE

from backends.serving.errors import InvalidValue
from backends.speech.text.addresses import speak_addresses
from backends.speech.text.checks import GREEK, PRONUNCIATION
from backends.speech.text.quantities import speak_quantities

MAX_DIGITS = 15
"""Numbers with more digits than this are read digit by digit."""
MAX_RUN_CHARS = 64
"""Longest run without spaces. Longer ones get a space, after a character that is no letter if there is one."""
MAX_RUN_PARTS = 12
"""Most words, numbers and marks that a run without spaces may join."""

KNOWN = frozenset("‘’“”„«»‚´…—–‐‑‒―°¢§¶±×÷™®©•→←½¼¾²³µ£€¥₹₩¡¿·")
"""Characters outside ASCII that the library reads, or drops where nothing is to be said."""

_SYMBOLS = {
    "‐": "-",
    "‑": "-",
    "−": " minus ",
    "≈": " approximately ",
    "≠": " is not equal to ",
    "≤": " less than or equal to ",
    "≥": " greater than or equal to ",
    "∞": " infinity ",
    "√": " square root of ",
    "∑": " sum of ",
    "∏": " product of ",
    "∫": " integral of ",
    "∂": " partial ",
    "⁄": "/",
    "∕": "/",
    "‰": " per mille",
    "№": " number ",
    "℃": "°C",
    "℉": "°F",
    "฿": " baht ",
    "₿": " bitcoin ",
    "₽": " rubles ",
    "₺": " lira ",
    "₴": " hryvnia ",
    "₪": " shekels ",
    "₫": " dong ",
    "₱": " pesos ",
    "₦": " naira ",
    "ʼ": "'",
    "ʻ": "'",
    "´": "'",
    "′": "'",
    "″": '"',
}
_FRACTION = re.compile(r"(?<=\d)([½¼¾⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞])")
_GREEK_LETTER = re.compile(rf"[{GREEK}]")
_LATIN_LETTER = re.compile(
    r"LATIN (?:(SMALL)|CAPITAL|LETTER)(?: LETTER| LIGATURE)?(?: SMALL CAPITAL)? (?:[A-Z]+ )*?([A-Z]+)(?: WITH .*)?$"
)
_NAMED_LETTERS = {
    "ALPHA": "a",
    "ENG": "ng",
    "ESH": "sh",
    "ETH": "d",
    "EZH": "zh",
    "GAMMA": "g",
    "GHA": "gh",
    "IOTA": "i",
    "KRA": "k",
    "SCHWA": "e",
    "THORN": "th",
    "UPSILON": "u",
    "WYNN": "w",
    "YOGH": "y",
}
"""Replacements of Latin letters that have a name in Unicode and that the library does not know."""
_NUMBER = re.compile(r"\d[\d,.]*\d")
_REPEATED = re.compile(r"([^\w\s])\1{3,}")
_SPACES = re.compile(r"[^\S\n]+")
_RUN = re.compile(rf"\S{{{MAX_RUN_PARTS + 1},}}")


def prepare(text: str, known_letters: frozenset[str]) -> str:
    """Return the text with everything spelt out that the library cannot read.

    `known_letters` are the letters outside ASCII that its model of unknown words can read; others lose their accents.
    Raises `InvalidValue`, naming `text` and a letter that has no reading.
    """
    parts, start = [], 0
    for found in PRONUNCIATION.finditer(text):
        parts += [_prepare(text[start : found.start()], known_letters), found.group()]
        start = found.end()
    return "".join([*parts, _prepare(text[start:], known_letters)])


def _prepare(text: str, known_letters: frozenset[str]) -> str:
    if not text.isascii():
        text = _FRACTION.sub(r" and \1", unicodedata.normalize("NFC", text))
        text = _GREEK_LETTER.sub(_greek_name, text)
        unusual = {ord(character) for character in text if ord(character) > 127}
        text = text.translate({code: _reading(chr(code), known_letters) for code in unusual})
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\x85", "\n").replace("`", "")
    text = _NUMBER.sub(_digits, speak_quantities(speak_addresses(text)))
    text = _SPACES.sub(" ", _REPEATED.sub(r"\1\1\1", text))
    return _RUN.sub(_broken, text)


def _reading(character: str, known_letters: frozenset[str]) -> str:
    """Return what is read for a character outside ASCII; empty for emoji, marks and invisible characters."""
    if character in _SYMBOLS:
        return _SYMBOLS[character]
    if character in KNOWN or character in known_letters:
        return character
    category = unicodedata.category(character)
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if category[0] in "MC":  # accents that no letter took, joiners, soft hyphens, direction marks, private use
        return ""
    if category[0] == "Z":
        return "\n" if category in ("Zl", "Zp") else " "
    if category[0] == "L":
        return _latin(character, known_letters)
    if category[0] == "P":
        return {"Pd": "—", "Pi": '"', "Pf": '"', "Ps": "(", "Pe": ")"}.get(category, ", ")
    plain = unicodedata.normalize("NFKC", character).replace("⁄", "/")
    if plain.isascii() and (category[0] == "N" or plain.isalnum()):
        return f" {plain} "
    if category[0] == "N":
        return f" {Fraction(unicodedata.numeric(character)).limit_denominator(1000)} "
    if category == "Sc":
        return f" {unicodedata.name(character, 'currency').removesuffix(' SIGN').lower()} "
    return " "  # emoji, dingbats, arrows, box drawings


def _latin(character: str, known_letters: frozenset[str]) -> str:
    """Return the nearest letters that the library can read."""
    plain = unicodedata.normalize("NFKD", character)
    if plain != character:
        kept = (each for each in plain if not unicodedata.combining(each))
        return "".join(each if each.isascii() else _reading(each, known_letters) for each in kept)
    if character.lower() in known_letters:
        return character.lower()
    if unicodedata.category(character) == "Lm":  # marks of stress, length and tone
        return ""
    found = _LATIN_LETTER.match(unicodedata.name(character, ""))
    letters = _NAMED_LETTERS.get(found[2], found[2] if len(found[2]) < 3 else "") if found else ""
    if not letters:
        raise InvalidValue(f'The letter "{character}" (U+{ord(character):04X}) cannot be read.', "text")
    return letters.lower() if character.islower() else letters.upper()


def _greek_name(found: re.Match[str]) -> str:
    name = unicodedata.name(found.group()).partition(" WITH ")[0].removesuffix(" SYMBOL").split()[-1].lower()
    return f" {name.replace('lamda', 'lambda')} "


def _digits(found: re.Match[str]) -> str:
    number = found.group()
    if sum(map(str.isdigit, number)) <= MAX_DIGITS:
        return number
    return " ".join({".": "point"}.get(character, character) for character in number).replace(" ,", ",")


def _broken(found: re.Match[str]) -> str:
    rest, runs = found.group(), []
    while len(rest) > MAX_RUN_CHARS:
        cut = next((at for at in range(MAX_RUN_CHARS, 1, -1) if not rest[at - 1].isalnum()), MAX_RUN_CHARS)
        runs.append(rest[:cut])
        rest = rest[cut:]
    return " ".join(map(_separated, [*runs, rest]))


def _separated(run: str) -> str:
    starts = [part.start() for part in SUBTOKEN_RE.finditer(run)][::MAX_RUN_PARTS]
    return " ".join(run[start:end] for start, end in zip([0, *starts[1:]], [*starts[1:], len(run)], strict=True))
