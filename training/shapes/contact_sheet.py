"""Write a contact sheet: many images on one page, each with its prompt."""

from pathlib import Path

from PIL import Image, ImageDraw

from training.shapes.rendering import IMAGE_SIZE, ImageArray

CELL = (IMAGE_SIZE + 12, IMAGE_SIZE + 48)
MAX_LINE_CHARACTERS = 24
"""Characters per line of a caption."""


def write_contact_sheet(
    images: list[ImageArray], captions: list[str], marks: list[bool], columns: int, path: Path
) -> None:
    """Write the page as PNG. `marks` says which images are right; the others get a red frame."""
    width, height = CELL
    rows = -(-len(images) // columns)
    page = Image.new("RGB", (columns * width, rows * height), "white")
    draw = ImageDraw.Draw(page)
    for number, (image, caption, right) in enumerate(zip(images, captions, marks, strict=True)):
        x, y = number % columns * width + 6, number // columns * height + 6
        draw.rectangle(
            (x - 3, y - 3, x + IMAGE_SIZE + 2, y + IMAGE_SIZE + 2), fill=None if right else "red", outline="lightgrey"
        )
        page.paste(Image.fromarray(image), (x, y))
        for row, text in enumerate(_lines(caption)[:4]):
            draw.text((x, y + IMAGE_SIZE + 4 + 9 * row), text, fill="black", font_size=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, optimize=True)


def _lines(caption: str) -> list[str]:
    lines = [""]
    for word in caption.split():
        if len(lines[-1]) + len(word) > MAX_LINE_CHARACTERS:
            lines.append("")
        lines[-1] += f"{word} "
    return lines
