"""Words as they are spoken, so that "$340", "340 dollars" and "three hundred and forty dollars" are one text.

A written number often has several readings ("1998", "9:30"). All of them are kept, and a comparison takes the nearest.
"""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

Reading = tuple[str, ...]
"""Spoken words in lower case, without punctuation and without the "and" of numbers."""

_SMALL = [
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
]
_TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SCALES = ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred"))
_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_CURRENCIES = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent")}
_ABBREVIATIONS: dict[str, tuple[str, ...]] = {
    "dr": ("doctor", "drive"),
    "mr": ("mister",),
    "mrs": ("missus",),
    "ms": ("miss", "ms"),
    "prof": ("professor",),
    "st": ("saint", "street"),
    "ave": ("avenue",),
    "rd": ("road",),
    "vs": ("versus",),
    "etc": ("et cetera",),
    "jan": ("january",),
    "feb": ("february",),
    "aug": ("august",),
    "sept": ("september",),
    "oct": ("october",),
    "nov": ("november",),
    "dec": ("december",),
    "kg": ("kilograms", "kilogram"),
    "km": ("kilometers", "kilometer", "kilometres"),
    "cm": ("centimeters", "centimeter"),
    "mph": ("miles per hour", "mph"),
    "lbs": ("pounds",),
    "ft": ("feet",),
    "approx": ("approximately",),
    "dept": ("department",),
    "no": ("no", "number"),
    "jr": ("junior",),
    "ok": ("okay",),
    "versus": ("versus",),
    "%": ("percent",),
    "&": ("and",),
    "+": ("plus",),
    "=": ("equals",),
    "°c": ("degrees celsius",),
    "°f": ("degrees fahrenheit",),
    "°": ("degrees",),
}
_CHARACTERS = str.maketrans({"\u2018": "'", "\u2019": "'", "-": " ", "\u2013": " ", "\u2014": " "})
_AMOUNT = re.compile(
    r"([$£€])\s?(\d+(?:,\d{3})*(?:\.\d+)?)(?:\s+(hundred|thousand|million|billion))?(?!\w)", re.IGNORECASE
)
_TOKEN = re.compile(
    r"[$£€]\S*|\d+(?:st|nd|rd|th)\b|\d{4}s\b|\d+(?:,\d{3})*(?:[.:]\d+)*|(?:[a-z]\.){2,}|[a-z]+(?:'[a-z]+)*|°[cf]?|[%&+=]"
)
_NUMBER_AND = re.compile(r"\b(hundred|thousand|million) and\b")


def cardinal(number: int) -> str:
    """Return a number from 0 to 999,999,999,999 in words."""
    if number < 20:
        return _SMALL[number]
    if number < 100:
        return _TENS[number // 10] + (f" {_SMALL[number % 10]}" if number % 10 else "")
    size, name = next((size, name) for size, name in _SCALES if number >= size)
    rest = f" {cardinal(number % size)}" if number % size else ""
    return f"{cardinal(number // size)} {name}{rest}"


def ordinal(number: int) -> str:
    """Return an ordinal number in words."""
    *before, last = cardinal(number).split()
    last = _ORDINALS.get(last) or (f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th")
    return " ".join([*before, last])


def readings(text: str) -> list[list[Reading]]:
    """Return the words of a text. Each has one or several readings, of one or several spoken words."""
    text = text.lower().translate(_CHARACTERS)
    text = _NUMBER_AND.sub(r"\1", text)
    found = []
    start = 0
    for amount in _AMOUNT.finditer(text):
        found += [_token(token) for token in _TOKEN.findall(text[start : amount.start()])]
        found.append(_amount(*amount.groups()))
        start = amount.end()
    return found + [_token(token) for token in _TOKEN.findall(text[start:])]


def _token(token: str) -> list[Reading]:
    if token[0].isdigit():
        return _number(token)
    plain = token.replace(".", "").replace("'", "")
    return [tuple(reading.split()) for reading in _ABBREVIATIONS.get(plain, (plain,))]


def _number(token: str) -> list[Reading]:
    digits = token.replace(",", "")
    if match := re.fullmatch(r"(\d+)(st|nd|rd|th)", digits):
        return [tuple(ordinal(int(match[1])).split())]
    if match := re.fullmatch(r"(\d\d)(\d)0s", digits):
        decade = _TENS[int(match[2])] if match[2] > "1" else ""
        return [(*cardinal(int(match[1])).split(), f"{decade[:-1]}ies" if decade else "hundreds")]
    if match := re.fullmatch(r"(\d+)[:.](\d+)", digits):
        return _clock(match[1], match[2]) + ([_decimal(digits)] if "." in digits else [])
    if not digits.isdigit():  # "1.2.3", "10:05:30"
        return [tuple(word for part in re.split(r"[.:]", digits) for word in _number(part)[0])]
    spelled = tuple(_SMALL[int(digit)] for digit in digits)
    if len(digits) > 12:
        return [spelled]
    found = [tuple(cardinal(int(digits)).split()), spelled, tuple("oh" if each == "zero" else each for each in spelled)]
    if len(digits) == 4 and "," not in token:
        found.append(_pair(digits[:2], digits[2:]))
    elif len(digits) == 3:
        found.append(_pair(digits[:1], digits[1:]))
    if "," not in token:
        found.append(tuple(ordinal(int(digits)).split()))  # "March 4", spoken "March fourth"
    return found


def _pair(left: str, right: str) -> Reading:
    """Return the reading of years and of numbers of houses: "nineteen oh five", "three fifty"."""
    if right == "00":
        return (*cardinal(int(left)).split(), "hundred")
    return (*cardinal(int(left)).split(), *(["oh"] if right[0] == "0" else []), *cardinal(int(right)).split())


def _clock(hours: str, minutes: str) -> list[Reading]:
    whole = tuple(cardinal(int(hours)).split())
    if len(minutes) != 2:
        return [whole + tuple(cardinal(int(minutes)).split())] if len(minutes) < 4 else [whole]
    if minutes == "00":
        return [whole, (*whole, "oclock"), (*whole, "hundred")]
    return [_pair(hours, minutes)]


def _decimal(digits: str) -> Reading:
    whole, fraction = digits.split(".")
    return (*cardinal(int(whole)).split(), "point", *(_SMALL[int(digit)] for digit in fraction))


def _amount(sign: str, digits: str, scale: str | None) -> list[Reading]:
    unit, part = _CURRENCIES[sign]
    whole, _, fraction = digits.replace(",", "").partition(".")
    plural = unit if whole == "1" and not scale else f"{unit}s"
    if scale or (fraction and len(fraction) != 2):
        number = _decimal(f"{whole}.{fraction}") if fraction else tuple(cardinal(int(whole)).split())
        return [(*number, *([scale] if scale else []), plural)]
    words = (*cardinal(int(whole)).split(), plural)
    if not fraction or not int(fraction):
        return [words]
    cents = tuple(cardinal(int(fraction)).split())
    parts = "pence" if part == "penny" else part if fraction == "01" else f"{part}s"
    return [(*words, "and", *cents, parts), (*words, *cents, parts), (*cardinal(int(whole)).split(), *cents)]


def word_errors(reference: str, text: str) -> tuple[int, int]:
    """Return the words to insert, delete or replace in `text` to get `reference`, and the words of `reference`.

    A number counts by the reading that is nearest to the other text.
    """
    wanted = [word for choices in readings(reference) for word in choices[0]]
    costs = list(range(len(wanted) + 1))
    for choices in readings(text):
        costs = [min(each) for each in zip(*(_advance(costs, wanted, choice) for choice in choices), strict=True)]
    return costs[-1], len(wanted)


def _advance(costs: list[int], wanted: Sequence[str], words: Reading) -> list[int]:
    """Return the edit distances to each beginning of `wanted` after `words` were read."""
    for word in words:
        following = [costs[0] + 1]
        for place, other in enumerate(wanted):
            following.append(min(costs[place + 1] + 1, following[place] + 1, costs[place] + (word != other)))
        costs = following
    return costs


def start_differences(theirs: Sequence[tuple[str, float]], ours: Sequence[tuple[str, float]]) -> list[float]:
    """Return our start minus theirs, in seconds, of each word that both texts have at the same place.

    `theirs` and `ours` are words as they are written with their starts in seconds.
    """
    first, second = ([re.sub(r"[^a-z0-9]", "", word.lower()) for word, _ in words] for words in (theirs, ours))
    blocks = SequenceMatcher(None, first, second, autojunk=False).get_matching_blocks()
    return [ours[block.b + offset][1] - theirs[block.a + offset][1] for block in blocks for offset in range(block.size)]
