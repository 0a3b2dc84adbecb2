"""Scenes of coloured shapes: their vocabulary, random sampling, and prompts that describe them."""

import hashlib
import random
from dataclasses import dataclass

COLOURS = {
    "red": (220, 30, 40),
    "orange": (250, 140, 20),
    "yellow": (250, 220, 40),
    "green": (40, 160, 70),
    "blue": (40, 80, 220),
    "purple": (130, 50, 170),
    "pink": (250, 150, 190),
    "white": (250, 250, 250),
    "black": (20, 20, 24),
    "grey": (140, 140, 145),
}
"""sRGB of each colour word. Two colours that mix along an edge do not give a third one over a wide area."""

SHAPES = ("circle", "square", "triangle", "star", "ring")

RADIUS = {"small": 19, "large": 28}
"""Radius in pixels. A latent cell is 8 pixels wide: below a radius of about 19, cells no longer resolve a shape."""

PLACES = {
    "centre": (64, 64),
    "left": (32, 64),
    "right": (96, 64),
    "top": (64, 32),
    "bottom": (64, 96),
    "top left": (32, 32),
    "top right": (96, 32),
    "bottom left": (32, 96),
    "bottom right": (96, 96),
}
"""Centre of an object in pixels, x then y. All are multiples of a latent cell, so latents are the same everywhere."""

GROUP_LAYOUTS = {
    2: ("left", "right"),
    3: ("top", "bottom left", "bottom right"),
    4: ("top left", "top right", "bottom left", "bottom right"),
}
"""Places of the objects of a group, at least 64 pixels apart, so that large objects do not touch."""

RELATIONS = {
    "left of": ("left", "right"),
    "right of": ("right", "left"),
    "above": ("top", "bottom"),
    "below": ("bottom", "top"),
}

SYNONYMS = {
    "small": ("small", "little"),
    "large": ("large", "big"),
    "grey": ("grey", "gray"),
    "two": ("two", "2"),
    "three": ("three", "3"),
    "four": ("four", "4"),
    "left of": ("left of", "to the left of"),
    "right of": ("right of", "to the right of"),
    "centre": ("in the centre", "in the middle", "in the center"),
    "left": ("on the left",),
    "right": ("on the right",),
    "top": ("at the top",),
    "bottom": ("at the bottom",),
    **{name: (f"at the {name}", f"in the {name} corner") for name in GROUP_LAYOUTS[4]},
}
"""Phrases for each word; the first is the canonical one."""

NUMBER_WORDS = {2: "two", 3: "three", 4: "four"}
PROMPT_PREFIXES = ("a picture of", "a drawing of", "an image of", "a photo of")


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One shape. Its fields are keys of `COLOURS`, `SHAPES`, `RADIUS` and `PLACES`."""

    colour: str
    shape: str
    size: str
    place: str


@dataclass(frozen=True, slots=True)
class Scene:
    """One object, a group of two to four equal ones, or two in one of the `RELATIONS`, on a plain background."""

    background: str
    objects: tuple[SceneObject, ...]
    relation: str | None = None

    @property
    def kind(self) -> str:
        """`one`, `group` or `pair`."""
        return "pair" if self.relation else "one" if len(self.objects) == 1 else "group"


def sample_scene(rng: random.Random, held_out: bool = False) -> Scene:
    """Return a random scene of the training set, or with `held_out` one that is never trained on.

    A hash of the prompt holds out a tenth of all scenes, so that no evaluated scene was trained on.
    """
    while True:
        scene = _any_scene(rng)
        if (hashlib.sha256(scene_prompt(scene).encode()).digest()[0] % 10 == 0) == held_out:
            return scene


def _any_scene(rng: random.Random) -> Scene:
    background = "white" if rng.random() < 0.12 else rng.choice(list(COLOURS))
    colours = [name for name in COLOURS if name != background]

    def random_object(place: str) -> SceneObject:
        return SceneObject(rng.choice(colours), rng.choice(SHAPES), rng.choice(list(RADIUS)), place)

    kind = rng.random()
    if kind < 0.4:
        place = "centre" if rng.random() < 0.2 else rng.choice(list(PLACES))
        return Scene(background, (random_object(place),))
    if kind < 0.65:
        one = random_object("centre")
        places = GROUP_LAYOUTS[rng.choice(list(GROUP_LAYOUTS))]
        return Scene(background, tuple(SceneObject(one.colour, one.shape, one.size, place) for place in places))
    relation = rng.choice(list(RELATIONS))
    first, second = RELATIONS[relation]
    return Scene(background, (random_object(first), random_object(second)), relation)


def scene_prompt(scene: Scene, rng: random.Random | None = None) -> str:
    """Return a prompt for the scene: complete and canonical, or with `rng` varied as people would write it.

    A varied prompt uses synonyms and leaves words out: any size, the place of an object in the centre, and a white
    background. So the model draws what a prompt leaves out in the centre, on white.
    """

    def leaves_out(chance: float) -> bool:
        return rng is not None and rng.random() < chance

    def say(word: str) -> str:
        words = SYNONYMS.get(word, (word,))
        return rng.choice(words) if rng is not None and rng.random() < 0.4 else words[0]

    def noun(item: SceneObject, number: int = 1) -> str:
        words = [] if leaves_out(0.15) else [say(item.size)]
        words += [say(item.colour), item.shape + ("s" if number > 1 else "")]
        return f"{say(NUMBER_WORDS[number])} {' '.join(words)}" if number > 1 else _with_article(" ".join(words))

    first = scene.objects[0]
    if scene.relation:
        text = f"{noun(first)} {say(scene.relation)} {noun(scene.objects[1])}"
    else:
        text = noun(first, len(scene.objects))
    if scene.kind == "one" and not (first.place == "centre" and leaves_out(0.5)):
        text += f" {say(first.place)}"
    if not (scene.background == "white" and leaves_out(0.5)):
        text += f" on {_with_article(say(scene.background))} background"
    return f"{rng.choice(PROMPT_PREFIXES)} {text}" if rng is not None and rng.random() < 0.3 else text


def _with_article(text: str) -> str:
    return ("an " if text[0] in "aeiou" else "a ") + text


def vocabulary() -> list[str]:
    """Return every word that a prompt may contain, sorted."""
    phrases = [*COLOURS, *SHAPES, *(f"{shape}s" for shape in SHAPES), *RADIUS, *PLACES, *RELATIONS, *PROMPT_PREFIXES]
    phrases += [phrase for ways in SYNONYMS.values() for phrase in ways]
    return sorted({word for phrase in (*phrases, "a an the one and with next background") for word in phrase.split()})
