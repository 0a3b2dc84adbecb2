"""The grammar of prompts: leading picture URLs, a text with weights, and parameters.

https://docs.midjourney.com/hc/en-us/articles/32859204029709-Parameter-List.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

_PARAMETER = re.compile(r"(?:^|(?<=\s))(?:--|—)([A-Za-z][A-Za-z0-9_]*)(?=\s|$)")
_URL = re.compile(r"https?://\S+|<https?://\S+>", re.IGNORECASE)
# Bounded repetitions: the search of a long text of digits takes linear time.
_WEIGHT = re.compile(r"::\s?(-?(?:\d{1,6}(?:\.\d{0,6})?|\.\d{1,6}))?(?=\s|$|[^\s\d.-])")
_RATIO = re.compile(r"(\d{1,4}):(\d{1,4})")
_MAX_RATIO = 14
"""Longest side of a picture as a multiple of the other."""
_MAX_IMAGES = 16


class PromptError(ValueError):
    """The prompt has an unknown parameter, or a parameter has an invalid value. The message is for the caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A parsed prompt.

    `text` is what the pictures show, `negative` what they must not show. `images` are URLs of pictures to start from.
    `parameters` are values by the full names of parameters. `has_weights` tells that parts of the text have different
    weights.
    """

    text: str
    negative: str = ""
    images: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    has_weights: bool = False

    @property
    def final(self) -> str:
        """The text with its parameters in one form, as tasks show it."""
        shown = [
            f"--{name}" if value is True else f"--{name} {_shown(value)}" for name, value in self.parameters.items()
        ]
        return " ".join([*self.images, self.text, *shown]).strip()


def parse(prompt: str) -> Prompt:
    """Parse a prompt. Raises `PromptError`."""
    text, *pieces = _PARAMETER.split(prompt.strip())
    images, text = _leading_urls(text.strip())
    text, negative, has_weights = _weigh(text)
    parameters: dict[str, Any] = {}
    unknown = []
    for name, value in zip(pieces[::2], pieces[1::2], strict=True):
        full = _ALIASES.get(name.lower(), name.lower())
        if full not in _READERS:
            unknown.append(f"--{name[:40]}")
        else:
            parameters[full] = _read(full, value.strip())
    if unknown:
        raise PromptError(f"Unknown parameters: {', '.join(unknown[:20])}.")
    negatives = [negative, *([parameters["no"]] if "no" in parameters else [])]
    return Prompt(
        text=text,
        negative=", ".join(filter(None, negatives)),
        images=images,
        parameters=parameters,
        has_weights=has_weights,
    )


def _leading_urls(text: str) -> tuple[tuple[str, ...], str]:
    """Return the URLs that a text begins with, and the rest. Raises `PromptError` for too many."""
    images = []
    while found := _URL.match(text):
        images.append(found[0].strip("<>,"))
        text = text[found.end() :].lstrip(" ,\n\t")
    if len(images) > _MAX_IMAGES:
        raise PromptError(f"The prompt begins with {len(images)} pictures; the limit is {_MAX_IMAGES}.")
    return tuple(images), text


def _weigh(text: str) -> tuple[str, str, bool]:
    """Return the parts of a text with positive weights, those with negative ones, and whether weights differ."""
    pieces = _WEIGHT.split(text)
    if len(pieces) == 1:
        return text, "", False
    parts = [
        (part.strip(" ,"), float(weight or 1)) for part, weight in zip(pieces[::2], [*pieces[1::2], 1], strict=True)
    ]
    parts = [(part, weight) for part, weight in parts if part]
    positive = [part for part, weight in parts if weight > 0]
    negative = [part for part, weight in parts if weight <= 0]
    return ", ".join(positive), ", ".join(negative), len({weight for _, weight in parts if weight > 0}) > 1


def _read(name: str, value: str) -> Any:
    try:
        return _READERS[name](value)
    except ValueError as error:
        raise PromptError(f"Invalid value for --{name}: {error}.") from None


def _number(least: float, most: float, kind: type[int] | type[float] = int) -> Callable[[str], Any]:
    def read(value: str) -> Any:
        try:
            number = kind(value)
        except ValueError:
            number = most + 1
        if not least <= number <= most:
            word = "an integer" if kind is int else "a number"
            raise ValueError(f"expected {word} from {least} to {most}, got {value[:40]!r}")
        return number

    return read


def _choice(*values: float) -> Callable[[str], float]:
    def read(value: str) -> float:
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if number not in values:
            raise ValueError(f"expected one of {', '.join(f'{each:g}' for each in values)}, got {value[:40]!r}")
        return number

    return read


def _flag(value: str) -> bool:
    if value:
        raise ValueError(f"it takes no value, got {value[:40]!r}; parameters belong to the end of the prompt")
    return True


def _ratio(value: str) -> Fraction:
    found = _RATIO.fullmatch(value)
    if not found or "0" in (found[1].strip("0") or "0", found[2].strip("0") or "0"):
        raise ValueError(f"expected WIDTH:HEIGHT, 16:9 for example, got {value[:40]!r}")
    ratio = Fraction(int(found[1]), int(found[2]))
    if not Fraction(1, _MAX_RATIO) <= ratio <= _MAX_RATIO:
        raise ValueError(f"expected a ratio from 1:{_MAX_RATIO} to {_MAX_RATIO}:1, got {value[:40]!r}")
    return ratio


def _words(value: str) -> str:
    if not value:
        raise ValueError("it needs a value")
    return value


def _optional(value: str) -> str | bool:
    return value or True


def _version(value: str) -> str:
    if value and not re.fullmatch(r"\d(\.\d{1,2})?[a-z]?", value):
        raise ValueError(f"expected a version, 6.1 for example, got {value[:40]!r}")
    return value


def _shown(value: Any) -> str:
    match value:
        case Fraction():
            return f"{value.numerator}:{value.denominator}"
        case float():
            return f"{value:g}"
        case _:
            return str(value)


_ALIASES = {
    "aspect": "ar", "s": "stylize", "c": "chaos", "q": "quality", "version": "v", "r": "repeat", "w": "weird",
    "sameseed": "seed", "personalize": "p", "profile": "p",
}  # fmt: skip
_READERS: Mapping[str, Callable[[str], Any]] = {
    "ar": _ratio,
    "seed": _number(0, 2**32 - 1),
    "no": _words,
    "quality": _choice(0.25, 0.5, 1, 2, 4),
    "iw": _number(0, 3, float),
    "stylize": _number(0, 1000),
    "chaos": _number(0, 100),
    "weird": _number(0, 3000),
    "stop": _number(10, 100),
    "repeat": _number(1, 40),
    "v": _version,
    "niji": _version,
    "style": _words,
    "sref": _words,
    "cref": _words,
    "oref": _words,
    "sw": _number(0, 1000),
    "cw": _number(0, 100),
    "ow": _number(0, 1000),
    "p": _optional,
    "zoom": _number(1, 2, float),
    "motion": _words,
    "tile": _flag,
    "raw": _flag,
    "draft": _flag,
    "fast": _flag,
    "relax": _flag,
    "turbo": _flag,
    "video": _flag,
    "loop": _flag,
    "stealth": _flag,
    "public": _flag,
}
"""Readers of values, by the full names of parameters."""
