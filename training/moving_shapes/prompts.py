"""Prompts that describe a scene, canonical or in varied words."""

import random

from training.moving_shapes.scenes import MovingScene
from training.shapes.scenes import COLOURS, SHAPES

MOTION_PHRASES = {
    "left": (
        ("moves to the left", "moving to the left"),
        ("moves left", "moving left"),
        ("goes to the left", "going to the left"),
        ("slides to the left", "sliding to the left"),
        ("drifts left", "drifting left"),
        ("travels from right to left", "travelling from right to left"),
    ),
    "right": (
        ("moves to the right", "moving to the right"),
        ("moves right", "moving right"),
        ("goes to the right", "going to the right"),
        ("slides to the right", "sliding to the right"),
        ("drifts right", "drifting right"),
        ("travels from left to right", "travelling from left to right"),
    ),
    "up": (
        ("moves up", "moving up"),
        ("moves upwards", "moving upwards"),
        ("goes up", "going up"),
        ("rises", "rising"),
        ("floats up", "floating up"),
        ("travels from bottom to top", "travelling from bottom to top"),
    ),
    "down": (
        ("moves down", "moving down"),
        ("moves downwards", "moving downwards"),
        ("goes down", "going down"),
        ("falls", "falling"),
        ("sinks", "sinking"),
        ("travels from top to bottom", "travelling from top to bottom"),
    ),
    "circle": (
        ("moves in a circle", "moving in a circle"),
        ("goes in a circle", "going in a circle"),
        ("goes around in a circle", "going around in a circle"),
        ("goes round", "going round"),
    ),
    "grow": (
        ("grows", "growing"),
        ("gets bigger", "getting bigger"),
        ("gets larger", "getting larger"),
        ("becomes larger", "becoming larger"),
        ("expands", "expanding"),
    ),
    "shrink": (
        ("shrinks", "shrinking"),
        ("gets smaller", "getting smaller"),
        ("becomes smaller", "becoming smaller"),
        ("contracts", "contracting"),
    ),
    "turn": (
        ("turns", "turning"),
        ("rotates", "rotating"),
        ("spins", "spinning"),
        ("turns around", "turning around"),
    ),
    "appear": (
        ("appears", "appearing"),
        ("fades in", "fading in"),
        ("shows up", "showing up"),
        ("slowly appears", "slowly appearing"),
    ),
}
"""Phrases for each motion: the verb, and its form after a noun. The first is the canonical one."""

PREFIXES = ("a video of", "a clip of", "an animation of", "a short video of", "a film of", "show", "make a video of")
ADVERBS = ("slowly", "smoothly", "steadily", "gently", "now")
ENDINGS = ("please", "in a loop", "over time", "in flat colours")
GREYS = ("grey", "gray")


def scene_prompt(scene: MovingScene, rng: random.Random | None = None) -> str:
    """Return a complete and canonical prompt for the scene, or with `rng` one in varied words.

    A varied prompt may leave out a white background, and may have filler words.
    """
    if rng is None:
        verb = MOTION_PHRASES[scene.motion][0][0]
        colour, background = (f"{_article(name)} {name}" for name in (scene.colour, scene.background))
        return f"{colour} {scene.shape} {verb} on {background} background"
    colour, background = (rng.choice(GREYS) if name == "grey" else name for name in (scene.colour, scene.background))
    phrases = MOTION_PHRASES[scene.motion]
    verb, participle = phrases[0] if rng.random() < 0.3 else rng.choice(phrases)
    subject = f"{'the' if rng.random() < 0.1 else _article(colour)} {colour} {scene.shape}"
    prefix = rng.choice(PREFIXES) if rng.random() < 0.3 else ""
    if prefix:
        action = participle if rng.random() < 0.7 else f"that {verb}"
    else:
        action = verb if rng.random() < 0.75 else participle
    if rng.random() < 0.12:
        adverb = rng.choice(ADVERBS)
        action = f"{action} {adverb}" if rng.random() < 0.5 or action.startswith("that ") else f"{adverb} {action}"
    place = f"{rng.choice(('on', 'on', 'on', 'in front of', 'over'))} {_article(background)} {background} background"
    if scene.background == "white" and rng.random() < 0.4:
        place = ""
    ordered = (
        [place + ",", prefix, subject, action] if place and rng.random() < 0.15 else [prefix, subject, action, place]
    )
    text = " ".join(part for part in ordered if part)
    return f"{text} {rng.choice(ENDINGS)}" if rng.random() < 0.08 else text


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def vocabulary() -> list[str]:
    """Return every word that a prompt may contain, sorted."""
    phrases = [*COLOURS, *SHAPES, *PREFIXES, *ADVERBS, *ENDINGS, *GREYS]
    phrases += [phrase for pairs in MOTION_PHRASES.values() for pair in pairs for phrase in pair]
    phrases.append("a an the that on in front of over background and with clockwise shape")
    return sorted({word for phrase in phrases for word in phrase.split()})
