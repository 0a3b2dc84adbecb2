"""Scenes of coloured shapes: what can be in one, how one is invented, and how it is said in words."""

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
"""sRGB of each colour word. No mixture of two of them along an edge is wide enough to be taken for a third."""

SHAPES = ("circle", "square", "triangle", "star", "ring")

RADIUS = {"small": 19, "large": 28}
"""Pixels. A cell of the latents is 8 pixels wide: below about 19 the shape of a shape is lost between cells."""

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
"""Centre of a thing in pixels, x then y. All are whole cells, so a shape has the same latents in every place."""

GROUP_LAYOUTS = {
    2: ("left", "right"),
    3: ("top", "bottom left", "bottom right"),
    4: ("top left", "top right", "bottom left", "bottom right"),
}
"""Where the members of a group stand: 64 pixels apart or more, so the largest never touch."""

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
"""The ways to say a thing; the first is the usual one."""

NUMBER_WORDS = {2: "two", 3: "three", 4: "four"}
PROMPT_PREFIXES = ("a picture of", "a drawing of", "an image of", "a photo of")


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One shape: names from `COLOURS`, `SHAPES`, `RADIUS` and `PLACES`."""

    colour: str
    shape: str
    size: str
    place: str


@dataclass(frozen=True, slots=True)
class Scene:
    """One thing, a group of two to four alike, or two things in one of the `RELATIONS`, on a plain background."""

    background: str
    objects: tuple[SceneObject, ...]
    relation: str | None = None

    @property
    def kind(self) -> str:
        """`one`, `group` or `pair`."""
        return "pair" if self.relation else "one" if len(self.objects) == 1 else "group"


def sample_scene(rng: random.Random, held_out: bool = False) -> Scene:
    """Give a scene of the training set, or one that the training set never holds.

    A tenth of all scenes is held out, by a hash of what is in them: nothing that is evaluated was trained on.
    """
    while True:
        scene = _any_scene(rng)
        if (hashlib.sha256(scene_prompt(scene).encode()).digest()[0] % 10 == 0) == held_out:
            return scene


def _any_scene(rng: random.Random) -> Scene:
    background = "white" if rng.random() < 0.12 else rng.choice(list(COLOURS))
    colours = [name for name in COLOURS if name != background]

    def thing(place: str) -> SceneObject:
        return SceneObject(rng.choice(colours), rng.choice(SHAPES), rng.choice(list(RADIUS)), place)

    kind = rng.random()
    if kind < 0.4:
        place = "centre" if rng.random() < 0.2 else rng.choice(list(PLACES))
        return Scene(background, (thing(place),))
    if kind < 0.65:
        one = thing("centre")
        places = GROUP_LAYOUTS[rng.choice(list(GROUP_LAYOUTS))]
        return Scene(background, tuple(SceneObject(one.colour, one.shape, one.size, place) for place in places))
    relation = rng.choice(list(RELATIONS))
    first, second = RELATIONS[relation]
    return Scene(background, (thing(first), thing(second)), relation)


def scene_prompt(scene: Scene, rng: random.Random | None = None) -> str:
    """The scene in words, complete and always the same; with `rng` as people would put it.

    Then synonyms are used and words left out: a size at will, the place of what is in the centre, a white background.
    So what a prompt leaves out is drawn in the centre, on white.
    """

    def leaves_out(chance: float) -> bool:
        return rng is not None and rng.random() < chance

    def say(word: str) -> str:
        words = SYNONYMS.get(word, (word,))
        return rng.choice(words) if rng is not None and rng.random() < 0.4 else words[0]

    def noun(thing: SceneObject, number: int = 1) -> str:
        words = [] if leaves_out(0.15) else [say(thing.size)]
        words += [say(thing.colour), thing.shape + ("s" if number > 1 else "")]
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
    """Every word that a prompt may hold, sorted."""
    phrases = [*COLOURS, *SHAPES, *(f"{shape}s" for shape in SHAPES), *RADIUS, *PLACES, *RELATIONS, *PROMPT_PREFIXES]
    phrases += [phrase for ways in SYNONYMS.values() for phrase in ways]
    return sorted({word for phrase in (*phrases, "a an the one and with next background") for word in phrase.split()})
