"""Spoken forms of web addresses, e-mail addresses and names of files: `example.com` is "example dot com"."""

import re

_TOP = "(?:com|org|net|edu|gov|info|biz|dev|app|ai|au|ca|ch|cn|co|de|dk|eu|fr|io|jp|nl|nz|se|tv|uk|us)"
"""Ends of addresses that are read without `https` or `www`; an `it` or `no` may begin a sentence without a space."""
_LABELS = r"[A-Za-z0-9][A-Za-z0-9-]{0,62}(?:\.[A-Za-z0-9-]{1,63}){0,8}"
_HOST = rf"{_LABELS}\.{_TOP}(?![A-Za-z0-9-]|\.[A-Za-z0-9])"
_REST = r"(?::\d{1,5})?(?:[/?#][^\s<>\"“”]{0,2000})?"
_URL = re.compile(
    rf"(?<![\w@./-])(?:(?i:https?|ftp)://[^\s<>\"“”]{{1,2000}}|(?i:www)\.{_LABELS}{_REST}|{_HOST}{_REST})"
)
_EMAIL = re.compile(
    r"(?<![\w.+-])(?:mailto:)?[A-Za-z0-9_][\w.+-]{0,63}@[A-Za-z0-9][A-Za-z0-9-]{0,62}(?:\.[A-Za-z0-9-]{1,63}){1,8}"
)
_EXTENSIONS = (
    "bat|bin|bmp|cfg|conf|cpp|csv|css|docx?|exe|flac|gif|gz|html?|ini|ipynb|jar|java|jpe?g|js|json|log|md|mov|mp[34]|"
    "odt|ogg|onnx|pdf|png|pptx?|py|rs|rtf|sh|sql|svg|tar|tex|toml|tsx?|txt|wav|webm|webp|xlsx?|xml|ya?ml|zip"
)
_FOLDERS = r"(?:[A-Za-z]:\\|~?/|\.{1,2}/)?(?:[\w.-]{1,64}[/\\]){0,16}"
_FILE = re.compile(
    rf"(?<![\w.@/\\-]){_FOLDERS}[A-Za-z0-9_][\w-]{{0,99}}(?:\.[\w-]{{1,99}}){{0,4}}\.(?:{_EXTENSIONS})(?![\w-]|\.\w)"
)
_END = ".,;:!?'’*_"
"""Marks at the end of an address that belong to the sentence."""
_BRACKETS = {")": "(", "]": "[", "}": "{"}
_MARKS = {
    ".": "dot",
    "/": "slash",
    "\\": "backslash",
    "-": "dash",
    "_": "underscore",
    "~": "tilde",
    ":": "colon",
    "@": "at",
    "?": "question mark",
    "=": "equals",
    "&": "and",
    "#": "hash",
    "%": "percent",
    "+": "plus",
}
_PART = re.compile(r"[A-Za-z]+|\d+|.", re.DOTALL)
_SPELT = frozenset(
    {"exe", "io", "ai", "uk", "us", "eu", "au", "de", "ie", "it", "no", "be", "at", "es", "se", "py", "ly"}
)
"""Ends of names that are spelt, although they could be words."""
_MAX_SPELT_LETTERS = 4


def speak_addresses(text: str) -> str:
    """Return the text with addresses and names of files in words."""
    if "." not in text and "://" not in text:
        return text
    text = _EMAIL.sub(lambda found: _spoken(found.group().removeprefix("mailto:")), text)
    text = _URL.sub(_url, text)
    return _FILE.sub(lambda found: _spoken(found.group()), text)


def _url(found: re.Match[str]) -> str:
    address, rest = found.group(), ""
    while address[-1] in _END or address.count(address[-1]) > address.count(_BRACKETS.get(address[-1], address[-1])):
        address, rest = address[:-1], address[-1] + rest
    scheme, separator, place = address.rpartition("://")
    if not place:
        return found.group()
    host = re.split(r"[/?#:]", place, maxsplit=1)[0]
    path = place[len(host) :].rstrip("/")
    spoken = _spoken(host) + (f" {_spoken(path)}" if path else "")
    return (f"{_letters(scheme)}, " if separator else "") + spoken + rest


def _spoken(name: str) -> str:
    """Return the words of an address. What follows its last dot is spelt if it is no usual word."""
    last = name.rpartition(".")[2].lower() if "." in name else ""
    words = []
    for part in _PART.findall(name):
        if part.isalpha():
            is_end = part.lower() == last and part.lower() in _SPELT
            words.append(_letters(part) if is_end or _has_no_vowel(part) else part)
        elif part.isdigit():
            words.append(part if len(part) < _MAX_SPELT_LETTERS and part[0] != "0" else " ".join(part))
        else:
            words.append(_MARKS.get(part, part))
    return " ".join(words)


def _has_no_vowel(word: str) -> bool:
    return len(word) <= _MAX_SPELT_LETTERS and not set(word.lower()) & set("aeiouy")


def _letters(word: str) -> str:
    return " ".join(word.upper())
