"""Spoken forms of amounts, numbers and ranges that the grapheme-to-phoneme library misreads: `5€`, `+1 (555) 123-4567`.

Text that the library reads well is not changed. The rules run in the order of `_RULES`. A rule replaces the digits that
it reads by words, so later rules do not read them again.
"""

import re
from collections.abc import Callable

from hibari.g2p.normalize import UNITS as KNOWN_UNITS
from hibari.g2p.numbers import ordinal

Match = re.Match[str]

_NUM = r"\d{1,15}(?:,\d{3}){0,6}(?:\.\d{1,15})?"
_START = r"(?<![\w.,:/\-–$£€¥])"
"""Nothing before a number that would make it a part of something else."""
_END = r"(?![\w\-–/]|[.,:]\d)"
_DASH = r"(?:-| ?– ?)"
_SIGNS = "$£€¥₹"

_UNITS: dict[str, tuple[str, str]] = {
    **{name: (forms[0], forms[1]) for name, forms in KNOWN_UNITS.items()},
    "m": ("meter", "meters"),
    "g": ("gram", "grams"),
    "l": ("liter", "liters"),
    "L": ("liter", "liters"),
    "mL": ("milliliter", "milliliters"),
    "cl": ("centiliter", "centiliters"),
    "dl": ("deciliter", "deciliters"),
    "s": ("second", "seconds"),
    "h": ("hour", "hours"),
    "µs": ("microsecond", "microseconds"),
    "ns": ("nanosecond", "nanoseconds"),
    "ha": ("hectare", "hectares"),
    "V": ("volt", "volts"),
    "kV": ("kilovolt", "kilovolts"),
    "mV": ("millivolt", "millivolts"),
    "W": ("watt", "watts"),
    "mW": ("milliwatt", "milliwatts"),
    "mA": ("milliamp", "milliamps"),
    "Wh": ("watt hour", "watt hours"),
    "kJ": ("kilojoule", "kilojoules"),
    "Pa": ("pascal", "pascals"),
    "hPa": ("hectopascal", "hectopascals"),
    "kPa": ("kilopascal", "kilopascals"),
    "kcal": ("kilocalorie", "kilocalories"),
    "dB": ("decibel", "decibels"),
    "PB": ("petabyte", "petabytes"),
    "KiB": ("kibibyte", "kibibytes"),
    "MiB": ("mebibyte", "mebibytes"),
    "GiB": ("gibibyte", "gibibytes"),
    "TiB": ("tebibyte", "tebibytes"),
    "kbps": ("kilobit per second", "kilobits per second"),
    "rpm": ("revolution per minute", "revolutions per minute"),
    "ppm": ("part per million", "parts per million"),
}
_FREE_STANDING = frozenset({"m", "g", "l", "L", "s", "V", "W"})
"""Units of one letter. `5m` may be millions, `80s` a decade, and `350 W 34th Street` an address."""
_OWN = frozenset(_UNITS) - frozenset(KNOWN_UNITS)
_ANY_UNIT = "|".join(sorted(map(re.escape, _UNITS), key=len, reverse=True))
_UNIT = re.compile(
    rf"(?<![\w.\-–$£€¥])(?P<number>{_NUM})(?P<space> ?)(?P<unit>{_ANY_UNIT})(?P<power>[²³]?)(?:/(?P<per>{_ANY_UNIT}))?"
    r"(?P<per_power>[²³]?)(?![\w/²³'’])"
)
_POWERS = {"²": "square ", "³": "cubic ", "": ""}

_CODES: dict[str, tuple[str, str]] = {
    "USD": ("U.S. dollar", "U.S. dollars"),
    "EUR": ("euro", "euros"),
    "GBP": ("pound", "pounds"),
    "JPY": ("yen", "yen"),
    "CNY": ("yuan", "yuan"),
    "INR": ("rupee", "rupees"),
    "CHF": ("Swiss franc", "Swiss francs"),
    "CAD": ("Canadian dollar", "Canadian dollars"),
    "AUD": ("Australian dollar", "Australian dollars"),
    "NZD": ("New Zealand dollar", "New Zealand dollars"),
    "SEK": ("Swedish krona", "Swedish kronor"),
    "NOK": ("Norwegian krone", "Norwegian kroner"),
    "DKK": ("Danish krone", "Danish kroner"),
    "PLN": ("zloty", "zloty"),
}
_DOLLARS = {"US": "USD", "C": "CAD", "CA": "CAD", "A": "AUD", "AU": "AUD", "NZ": "NZD"}
_MAGNITUDES = {"k": "thousand", "m": "million", "mn": "million", "bn": "billion", "tn": "trillion"}
_MAGNITUDE = r"(?: ?(?P<magnitude>thousand|million|billion|trillion|k|m|mn|bn|tn)\b)?"
_MINUS_AMOUNT = re.compile(rf"(?<![\w)\]])[-−](?=[{_SIGNS}]\d)")
_FOREIGN_DOLLARS = re.compile(rf"\b(US|CA?|AU?|NZ)\$ ?(?P<number>{_NUM}){_MAGNITUDE}(?!\w)")
_CODE_FIRST = re.compile(rf"\b({'|'.join(_CODES)}) ?(?P<number>{_NUM}){_MAGNITUDE}(?!\w)")
_CODE_LAST = re.compile(rf"{_START}(?P<number>{_NUM}){_MAGNITUDE} ?({'|'.join(_CODES)})\b")
_SIGN_LAST = re.compile(rf"{_START}({_NUM}) ?([{_SIGNS}])(?![\w{_SIGNS}])")
_SHORT_MAGNITUDE = re.compile(rf"([{_SIGNS}]{_NUM}) ?(mn|bn|tn)\b")
_AMOUNT_RANGE = re.compile(rf"([{_SIGNS}])({_NUM})( ?(?:bn|mn|tn|[kKmM]))?{_DASH}\1?(?={_NUM})")
_PER = re.compile(rf"([{_SIGNS}]{_NUM}) ?/ ?(?=[a-z])")

_PHONE = re.compile(
    r"(?<![\w.,/\-–])(?:\+\d{1,3}(?:[ .\-]?\(?\d{1,5}\)?){1,5}|(?:1[ \-])?\(\d{3}\) ?\d{3}[ .\-]\d{4}"
    r"|(?:1[ \-])?\d{3}([.\-])\d{3}\1\d{4}|0\d{2,4}(?:[ \-]\d{2,4}){1,3}|0\d{2,4}/\d{5,8}|\d{3}-\d{4})"
    r"(?![\w\-–/]|[.,]\d)"
)
_SPACED = re.compile(r"(?<!\d )(?<![\w.,:/\-–+])[1-9]\d{0,2}(?: \d{3}){0,3} 000(?! ?\d|\w)")
"""10 000: a number with spaces, told from a telephone number by its zeros."""
_HYPHENED = re.compile(r"(?<![\w.,/\-–])\d{1,7}(?:-\d{1,7}){2,6}(?![\w\-–/]|[.,]\d)")
_LIKE_A_DATE = re.compile(r"\d{4}-\d{1,2}-\d{1,2}|\d{1,2}-\d{1,2}-\d{4}")
_MIN_PHONE_DIGITS, _MAX_PHONE_DIGITS = 7, 15
_DATE = re.compile(r"(?<![\w/])(\d{4})/(\d{2})/(\d{2})(?![\w/])")
_CLOCK = r"\d{1,2}:\d{2}(?: ?[ap]\.?m\b\.?)?|\d{1,2} ?[ap]\.?m\b\.?"
_CLOCK_RANGE = re.compile(rf"(?<![\w:.])({_CLOCK}) ?[-–] ?(?={_CLOCK})", re.IGNORECASE)
_RANGE = re.compile(rf"{_START}({_NUM})(%?){_DASH}({_NUM})(?=%|{_END}|(?:{_ANY_UNIT})\b)")
_MORNING = re.compile(r"(?<![\w:.])(\d{1,2}) ?[aA][mM]\b(?!\.[mM])")
_HEIGHT = re.compile(r"(?<![\w.])(\d{1,2})' ?(\d{1,2})(?:\"|'')")
_RATIO = re.compile(r"(?<![\w.:])(\d{1,3}):(\d)(?![\d:.]|\w)")
_DOTTED = re.compile(r"(?<![\w.,])([vV]\.? ?)?(\d{1,5}(?:\.\d{1,5}){2,7})(?!\w|[.,]\d)")
_SCIENTIFIC = re.compile(rf"{_START}(\d{{1,15}}(?:\.\d{{1,15}})?)[eE]([+-]?)(\d{{1,3}})(?!\w)")
_BY = re.compile(r"(?<=\d)(?<!\b0) ?[x*] ?(?=\d)")
_OUT_OF = re.compile(rf"{_START}(\d{{1,3}}\.\d)/(?=\d{{1,3}}(?!\w|[./]\d))")
_MIXED = re.compile(r"(?<![\w./\-])(\d{1,4})[ -](\d{1,2})/(\d{1,2})(?![\w/])")
_SMALL_FRACTION = re.compile(r"(?<![\w./])(\d{1,3})/(\d{2,4})(?![\w/]|\.\d)")
_DECIMAL = re.compile(
    rf"(?:(?<=[^\s\w.,{_SIGNS}])(\d{{1,15}}(?:,\d{{3}}){{0,6}})|(?<![\w.,{_SIGNS}]))\.(\d{{1,15}})(?!\w|[.,]\d| ?[°¢])"
)
_ZEROS = re.compile(r"(?<![\w.,:/\-–])0\d{1,14}(?!\w|[:/\-–.,]\d)")
_SHARP = re.compile(r"\b([A-G])#(?!\w)")


def speak_quantities(text: str) -> str:
    """Return the text with amounts, numbers and ranges as the library reads them right."""
    if any(map(str.isdigit, text)):
        for pattern, spoken in _RULES:
            text = pattern.sub(spoken, text)
    return _SHARP.sub(r"\1 sharp", text)


def _amount(found: Match, code: str) -> str:
    number, magnitude = found["number"], found["magnitude"]
    magnitude = _MAGNITUDES.get(magnitude or "", magnitude)
    return f"{number} {magnitude} {_CODES[code][1]}" if magnitude else f"{number} {_CODES[code][number != '1']}"


def _phone(found: Match) -> str:
    groups = re.findall(r"\d+", found.group())
    if not _MIN_PHONE_DIGITS <= sum(map(len, groups)) <= _MAX_PHONE_DIGITS:
        return found.group()
    return ("plus " if found.group()[0] == "+" else "") + ", ".join(map(" ".join, groups))


def _hyphened(found: Match) -> str:
    """Read numbers such as those of books and insurances digit by digit."""
    if _LIKE_A_DATE.fullmatch(found.group()):
        return found.group()
    return ", ".join(map(" ".join, found.group().split("-")))


def _unit(found: Match) -> str:
    name, power, per = found["unit"], found["power"], found["per"]
    number = found["number"]
    if name in _FREE_STANDING and not (power or per):
        follows = found.string[found.end() : found.end() + 2].strip()
        if follows[:1].isupper() or follows[:1].isdigit() or not (found["space"] or name in "VW"):
            return found.group()
    if not (power or per or name in _OWN) or (found["per_power"] and not per):
        return found.group()
    words = f"{number} {_POWERS[power]}{_UNITS[name][number != '1']}"
    if per == "s" and found["per_power"]:
        return f"{words} per second {'squared' if found['per_power'] == '²' else 'cubed'}"
    return words + (f" per {_POWERS[found['per_power']]}{_UNITS[per][0]}" if per else "")


def _dotted(found: Match) -> str:
    groups = found[2].split(".")
    is_address = not found[1] and len(groups) == 4 and all(int(group) < 256 for group in groups)
    joint = " dot " if is_address else " point "
    return ("version " if found[1] else "") + joint.join(groups)


def _small_fraction(found: Match) -> str:
    above, below = int(found[1]), int(found[2])
    if (above, below) == (24, 7) or below <= 31 or above >= below:
        return found.group()  # the library reads dates and simple fractions
    return f"{above} {ordinal(below)}{'' if above == 1 else 's'}"


def _mixed(found: Match) -> str:
    whole, above, below = map(int, found.groups())
    return f"{whole} and {above}/{below}" if 0 < above < below else found.group()


def _decimal(found: Match) -> str:
    """Read a number after a mark, such as a quote, or without a whole part: the library loses its point."""
    return f"{found[1] or ''} point {' '.join(found[2])}".strip()


_RULES: tuple[tuple[re.Pattern[str], str | Callable[[Match], str]], ...] = (
    (_MINUS_AMOUNT, "minus "),
    (_FOREIGN_DOLLARS, lambda found: _amount(found, _DOLLARS[found[1]])),
    (_CODE_FIRST, lambda found: _amount(found, found[1])),
    (_CODE_LAST, lambda found: _amount(found, found[3])),
    (_SIGN_LAST, r"\2\1"),
    (_AMOUNT_RANGE, lambda found: f"{found[1] + found[2] + found[3] if found[3] else found[2]} to {found[1]}"),
    (_SHORT_MAGNITUDE, lambda found: f"{found[1]} {_MAGNITUDES[found[2]]}"),
    (_PER, r"\1 per "),
    (_SPACED, lambda found: found.group().replace(" ", ",")),
    (_PHONE, _phone),
    (_HYPHENED, _hyphened),
    (_DATE, r"\1-\2-\3"),
    (_CLOCK_RANGE, r"\1 to "),
    (_MORNING, lambda found: f"{found[1]} A.M" + "." * (found.string[found.end() : found.end() + 1] != ".")),
    (_RANGE, r"\1\2 to \3"),
    (_HEIGHT, r"\1 feet \2 inches"),
    (_RATIO, r"\1 to \2"),
    (_SCIENTIFIC, lambda found: f"{found[1]} times 10 to the power of {'minus ' * (found[2] == '-')}{found[3]}"),
    (_UNIT, _unit),
    (_DOTTED, _dotted),
    (_BY, lambda found: " times " if "*" in found.group() else " by "),
    (re.compile(r"\b24/7\b"), "24 7"),
    (_OUT_OF, r"\1 out of "),
    (_MIXED, _mixed),
    (_SMALL_FRACTION, _small_fraction),
    (_DECIMAL, _decimal),
    (_ZEROS, lambda found: " ".join(found.group())),
)
