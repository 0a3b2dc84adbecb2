"""Read the claims of a caption, and compare them with the geometry of its picture, in any order of the shapes."""

import itertools
import re
from dataclasses import dataclass

from training.shapes.scenes import COLOURS, NUMBER_WORDS, PLACES, PROMPT_PREFIXES, RADIUS, RELATIONS, SHAPES, SYNONYMS
from training.shapes_captioner.captions import NO_SHAPES, caption
from training.shapes_captioner.pictures import SEPARATION, Picture, PlacedShape

CRITERIA = ("background", "count", "colour", "shape", "size", "position", "complete")
"""Criteria of a caption. Sizes and positions are right unless they are stated and wrong. A caption is `complete` if it
states as much as the canonical one; that is no part of `all`."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One shape as a caption names it; None for what it leaves out."""

    colour: str
    shape: str
    size: str | None = None
    place: str | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """The claims of a caption. `relation`, a key of `RELATIONS`, is that of the first of two shapes to the second."""

    background: str
    shapes: tuple[Claim, ...]
    relation: str | None = None

    @property
    def num_details(self) -> int:
        """Number of sizes, places and relations that are stated."""
        stated = [self.relation, *(value for claim in self.shapes for value in (claim.size, claim.place))]
        return sum(value is not None for value in stated)


def _pattern(words: list[str]) -> tuple[str, dict[str, str]]:
    """Return a pattern of all phrases for these words, longest first, and the word that each phrase stands for."""
    meanings = {phrase: word for word in words for phrase in SYNONYMS.get(word, (word,))}
    return "|".join(re.escape(phrase) for phrase in sorted(meanings, key=len, reverse=True)), meanings


_COLOUR, _COLOURS = _pattern(list(COLOURS))
_SIZE, _SIZES = _pattern(list(RADIUS))
_PLACE, _PLACES = _pattern(list(PLACES))
_RELATION, _RELATIONS = _pattern(list(RELATIONS))
_NUMBER, _NUMBERS = _pattern(list(NUMBER_WORDS.values()))
_COUNTS = {word: number for number, word in NUMBER_WORDS.items()}
_BODY = rf"(?:({_SIZE}) )?({_COLOUR}) ({'|'.join(SHAPES)})"
_ON_BACKGROUND = re.compile(rf"(.+) on an? ({_COLOUR}) background")
_GROUP = re.compile(rf"({_NUMBER}) {_BODY}s")
_ONE = re.compile(rf"an? {_BODY}(?: ({_PLACE}))?")
_PAIR = re.compile(rf"an? {_BODY} ({_RELATION}) an? {_BODY}")


def read_caption(text: str) -> Description | None:
    """Return the claims of a caption; None if it is no caption of this world."""
    text = text.strip().removesuffix(".").lower()
    for prefix in PROMPT_PREFIXES:
        text = text.removeprefix(f"{prefix} ")
    whole = _ON_BACKGROUND.fullmatch(text)
    if not whole:
        return None
    subject, background = whole[1], _COLOURS[whole[2]]
    if subject == NO_SHAPES:
        return Description(background, ())
    if group := _GROUP.fullmatch(subject):
        number, *body = group.groups()
        return Description(background, (_claim(*body),) * _COUNTS[_NUMBERS[number]])
    if pair := _PAIR.fullmatch(subject):
        groups = pair.groups()
        return Description(background, (_claim(*groups[:3]), _claim(*groups[4:])), _RELATIONS[groups[3]])
    parts = [_ONE.fullmatch(part) for part in re.split(", | and ", subject)]
    claims = [_claim(*part.groups()) for part in parts if part]
    return Description(background, tuple(claims)) if len(claims) == len(parts) else None


def _claim(size: str | None, colour: str, shape: str, place: str | None = None) -> Claim:
    return Claim(_COLOURS[colour], shape, _SIZES[size] if size else None, _PLACES[place] if place else None)


def judge(text: str, picture: Picture) -> dict[str, bool]:
    """Return for each of `CRITERIA`, and for `all` together, whether the caption meets it."""
    described = read_caption(text)
    if described is None:
        return dict.fromkeys((*CRITERIA, "all"), False)
    verdict = {
        "background": described.background == picture.background,
        "count": len(described.shapes) == len(picture.shapes),
    }
    details = ("colour", "shape", "size", "position")
    if verdict["count"]:
        # The pairing of claims and shapes that serves the caption best.
        orders = [_compare(described, order) for order in itertools.permutations(picture.shapes)]
        best: dict[str, bool] = max(orders, key=_num_met)
        verdict |= best
    else:
        verdict |= dict.fromkeys(details, False)
    expected = read_caption(caption(picture))
    assert expected is not None
    is_right = all(verdict.values())
    return {**verdict, "complete": described.num_details >= expected.num_details, "all": is_right}


def _compare(described: Description, shapes: tuple[PlacedShape, ...]) -> dict[str, bool]:
    pairs = list(zip(described.shapes, shapes, strict=True))
    return {
        "colour": all(claim.colour == item.colour for claim, item in pairs),
        "shape": all(claim.shape == item.shape for claim, item in pairs),
        "size": all(claim.size is None or claim.size in item.sizes for claim, item in pairs),
        "position": all(claim.place is None or claim.place in item.places for claim, item in pairs)
        and (described.relation is None or _holds(described.relation, *shapes)),
    }


def _num_met(verdict: dict[str, bool]) -> tuple[int, int]:
    return verdict["colour"] + verdict["shape"], sum(verdict.values())


def _holds(relation: str, first: PlacedShape, second: PlacedShape) -> bool:
    across, down = second.x - first.x, second.y - first.y
    return {"left of": across, "right of": -across, "above": down, "below": -down}[relation] >= SEPARATION
