"""Write a contact sheet: clips as film strips on one page, each with its prompt."""

import textwrap
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from training.moving_shapes.rendering import Clip
from training.moving_shapes.trajectories import CLIP_SIZE

SHOWN_FRAMES = (0, 4, 8, 12, 16)
MARGIN, CAPTION_HEIGHT, GAP = 6, 24, 2
MAX_LINE_CHARACTERS = 68


def write_contact_sheet(clips: list[Clip], captions: list[str], marks: list[bool], columns: int, path: Path) -> None:
    """Write the page as PNG, with five frames of each clip. `marks` says which clips are right; the others get a red
    frame."""
    strip = len(SHOWN_FRAMES) * (CLIP_SIZE + GAP) - GAP
    width, height = strip + 2 * MARGIN, CLIP_SIZE + CAPTION_HEIGHT + 2 * MARGIN
    page = Image.new("RGB", (columns * width, -(-len(clips) // columns) * height), "white")
    draw = ImageDraw.Draw(page)
    for number, (clip, caption, right) in enumerate(zip(clips, captions, marks, strict=True)):
        x, y = number % columns * width + MARGIN, number // columns * height + MARGIN
        draw.rectangle((x - 3, y - 3, x + strip + 2, y + CLIP_SIZE + 2), fill="lightgrey" if right else "red")
        for place, frame in enumerate(SHOWN_FRAMES):
            page.paste(Image.fromarray(np.asarray(clip[frame])), (x + place * (CLIP_SIZE + GAP), y))
        for line, text in enumerate(textwrap.wrap(caption, MAX_LINE_CHARACTERS)[:2]):
            draw.text((x, y + CLIP_SIZE + 3 + 10 * line), text, fill="black", font_size=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, optimize=True)
