"""Captions of pictures, in the words of the prompts of `shapes`, so that a caption is a prompt for the same picture."""

import random

from training.shapes.scenes import NUMBER_WORDS, PROMPT_PREFIXES, SYNONYMS
from training.shapes_captioner.pictures import Picture, PlacedShape

CLEAR_RELATION = 2.0
"""Two shapes are left of or above one another if they are so many times further apart along that axis than along the
other."""

NO_SHAPES = "nothing"


def caption(picture: Picture, rng: random.Random | None = None) -> str:
    """Return the complete and canonical caption, or with `rng` one in varied words.

    Sizes and places that are not clear are left out. A varied caption uses synonyms, may name a pair in the other
    order, and may leave out more of the sizes and places. It always tells number, colours, shapes and background.
    """
    words = _Wording(rng)
    background = f" on {with_article(words.say(picture.background))} background"
    text = _subject(picture, words) + background
    return f"{words.choose(PROMPT_PREFIXES)} {text}" if words.happens(0.1) else text


class _Wording:
    def __init__(self, rng: random.Random | None) -> None:
        self._rng = rng

    def happens(self, chance: float) -> bool:
        return self._rng is not None and self._rng.random() < chance

    def choose(self, ways: tuple[str, ...]) -> str:
        return ways[0] if self._rng is None else self._rng.choice(ways)

    def say(self, word: str) -> str:
        ways = SYNONYMS.get(word, (word,))
        return self.choose(ways) if self.happens(0.5) else ways[0]

    def noun(self, item: PlacedShape) -> str:
        size = size_word(item)
        words = [self.say(size)] if size and not self.happens(0.15) else []
        return " ".join([*words, self.say(item.colour), item.shape])


def _subject(picture: Picture, words: _Wording) -> str:
    shapes = picture.shapes
    if not shapes:
        return NO_SHAPES
    if picture.are_alike:
        return f"{words.say(NUMBER_WORDS[len(shapes)])} {words.noun(shapes[0])}s"
    if len(shapes) == 1:
        place = place_word(shapes[0])
        noun = with_article(words.noun(shapes[0]))
        return f"{noun} {words.say(place)}" if place and not words.happens(0.15) else noun
    ordered = sorted(shapes, key=lambda item: item.x)
    relation = _relation(*shapes, picture.extent) if len(shapes) == 2 else None
    if relation:
        reverse = words.happens(0.3)
        first, second = sorted(shapes, key=lambda item: item.x if relation == "left of" else item.y, reverse=reverse)
        relation = {"left of": "right of", "above": "below"}[relation] if reverse else relation
        return f"{with_article(words.noun(first))} {words.say(relation)} {with_article(words.noun(second))}"
    nouns = [with_article(words.noun(item)) for item in ordered]
    return f"{', '.join(nouns[:-1])} and {nouns[-1]}"


def _relation(first: PlacedShape, second: PlacedShape, extent: tuple[float, float]) -> str | None:
    width, height = extent
    across, down = abs(first.x - second.x) * width, abs(first.y - second.y) * height
    if across >= CLEAR_RELATION * down:
        return "left of"
    return "above" if down >= CLEAR_RELATION * across else None


def size_word(item: PlacedShape) -> str | None:
    """Return the size of a shape; None if it may be called small or large."""
    return next(iter(item.sizes)) if len(item.sizes) == 1 else None


def place_word(item: PlacedShape) -> str | None:
    """Return the place of a shape, a key of `PLACES`; None if it is at the border of several."""
    return next(iter(item.places)) if len(item.places) == 1 else None


def with_article(text: str) -> str:
    """Return the text after `a` or `an`."""
    return ("an " if text[0] in "aeiou" else "a ") + text
