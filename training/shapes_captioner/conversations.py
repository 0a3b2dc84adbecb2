"""Conversations about a picture: questions in varied words, and their true answers."""

import random
from collections import Counter
from dataclasses import dataclass

from training.shapes.scenes import COLOURS, NUMBER_WORDS, SHAPES, SYNONYMS
from training.shapes_captioner.captions import caption, place_word, size_word, with_article
from training.shapes_captioner.pictures import Picture, PlacedShape, sample_picture

DESCRIBE = (
    "What is in this picture?",
    "What is in this image?",
    "What's in this picture?",
    "What's in the image?",
    "Describe this picture.",
    "Describe this image.",
    "Describe the picture in one sentence.",
    "Describe this image as a prompt for an image generator.",
    "Write a prompt for this picture.",
    "Write a caption for this image.",
    "Caption this image.",
    "What do you see?",
    "What can you see in this picture?",
    "What does this picture show?",
    "What is this?",
    "What is shown here?",
    "Tell me what you see in this image.",
    "Please describe what is in the picture, in detail.",
    "describe",
    "",
)
"""Questions that ask for a caption; the first is the canonical one."""

VARIED_SHARE = 0.3
"""Share of the captions in varied words. The canonical one stays the likeliest, so greedy answers are canonical, and
sampled ones differ."""

NO_PICTURE = "I see no picture. Send me one with coloured shapes."
NO_KNOWN_SHAPES = "I know only coloured shapes, and I see none in this picture."

SYSTEM_PROMPTS = (
    "You are a helpful assistant.",
    "You are a helpful AI assistant.",
    "You describe pictures.",
    "Answer briefly.",
    "You are an assistant that looks at images and answers questions about them.",
)


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer."""

    question: str
    answer: str


def sample_turns(picture: Picture, count: int, rng: random.Random) -> list[Turn]:
    """Return turns about a picture. Most conversations begin with its caption."""
    first = _description(picture, rng) if rng.random() < 0.75 else _question(picture, rng)
    others = [_description(picture, rng) if rng.random() < 0.1 else _question(picture, rng) for _ in range(count - 1)]
    return [first, *others]


def fixed_turns(answer: str, count: int, rng: random.Random) -> list[Turn]:
    """Return turns that all have this answer, whatever is asked."""
    any_shape = PlacedShape(rng.choice(list(COLOURS)), rng.choice(SHAPES), 0.5, 0.5, 0.22)
    any_picture = Picture("white", (any_shape,), "free")
    return [Turn(turn.question, answer) for turn in sample_turns(any_picture, count, rng)]


def _description(picture: Picture, rng: random.Random) -> Turn:
    question = DESCRIBE[0] if rng.random() < 0.2 else rng.choice(DESCRIBE)
    return Turn(question, caption(picture, rng if rng.random() < VARIED_SHARE else None))


def _question(picture: Picture, rng: random.Random) -> Turn:
    """Ask one of the questions that have a clear answer."""
    asked = [_background, _count, _presence]
    if len({(item.colour, item.shape) for item in picture.shapes}) == len(picture.shapes) > 0:
        asked += [_colour, _shape, _size, _place]
    return rng.choice(asked)(picture, rng)


def _background(picture: Picture, rng: random.Random) -> Turn:
    return Turn(
        rng.choice(
            (
                "What colour is the background?",
                "What color is the background?",
                "What is the background colour?",
                "Which colour does the background have?",
            )
        ),
        picture.background,
    )


def _count(picture: Picture, rng: random.Random) -> Turn:
    question = rng.choice(
        ("How many shapes are there?", "How many shapes are in this picture?", "How many objects do you see?")
    )
    return Turn(question, {0: "none", 1: "one", **NUMBER_WORDS}[len(picture.shapes)])


def _presence(picture: Picture, rng: random.Random) -> Turn:
    if picture.shapes and rng.random() < 0.5:
        item = rng.choice(picture.shapes)
        colour, shape = item.colour, item.shape
    else:
        colour, shape = rng.choice(list(COLOURS)), rng.choice(SHAPES)
    noun = with_article(f"{rng.choice(SYNONYMS.get(colour, (colour,)))} {shape}")
    question = rng.choice((f"Is there {noun}?", f"Do you see {noun}?", f"Is there {noun} in this picture?"))
    return Turn(question, "yes" if any((s.colour, s.shape) == (colour, shape) for s in picture.shapes) else "no")


def _colour(picture: Picture, rng: random.Random) -> Turn:
    counts = Counter(item.shape for item in picture.shapes)
    shape = rng.choice(list(counts))
    if counts[shape] > 1:
        return _count(picture, rng)
    answer = next(item.colour for item in picture.shapes if item.shape == shape)
    return Turn(rng.choice((f"What colour is the {shape}?", f"What color is the {shape}?")), answer)


def _shape(picture: Picture, rng: random.Random) -> Turn:
    counts = Counter(item.colour for item in picture.shapes)
    colour = rng.choice(list(counts))
    if counts[colour] > 1:
        return _background(picture, rng)
    answer = next(with_article(item.shape) for item in picture.shapes if item.colour == colour)
    return Turn(rng.choice((f"Which shape is {colour}?", f"What shape is the {colour} one?")), answer)


def _size(picture: Picture, rng: random.Random) -> Turn:
    item = rng.choice(picture.shapes)
    size = size_word(item)
    if size is None:
        return _presence(picture, rng)
    noun = f"{item.colour} {item.shape}"
    question = rng.choice((f"Is the {noun} small or large?", f"How large is the {noun}?", f"How big is the {noun}?"))
    return Turn(question, size)


def _place(picture: Picture, rng: random.Random) -> Turn:
    item = rng.choice(picture.shapes)
    place = place_word(item)
    if place is None:
        return _presence(picture, rng)
    noun = f"{item.colour} {item.shape}"
    question = rng.choice((f"Where is the {noun}?", f"In which part of the picture is the {noun}?"))
    return Turn(question, SYNONYMS[place][0])


def sentences() -> list[str]:
    """Return texts that together have every word of the conversations."""
    phrases = [*DESCRIBE, *SYSTEM_PROMPTS, NO_PICTURE, NO_KNOWN_SHAPES]
    rng = random.Random(0)
    for _ in range(2_000):
        for turn in sample_turns(sample_picture(rng), 4, rng):
            phrases += [turn.question, turn.answer]
    return sorted(set(phrases))
