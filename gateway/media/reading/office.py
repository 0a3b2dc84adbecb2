"""Office documents into text: Word, PowerPoint, and every kind of spreadsheet."""

import csv
import re
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO, StringIO
from typing import Any

from gateway.media.reading import letters
from gateway.media.unusable import Unusable

_HEAD = 4096


def check_markup(archive: zipfile.ZipFile) -> None:
    """Refuse document types and entities: Office writes none, so they are bombs. Raises `Unusable`."""
    for part in archive.infolist():
        if part.filename.endswith((".xml", ".rels", ".vml")):
            with archive.open(part) as opened:
                start = opened.read(_HEAD).replace(b"\0", b"").upper()  # in UTF-16 too
            if b"<!DOCTYPE" in start or b"<!ENTITY" in start:
                raise Unusable("the file declares XML entities, which no Office document does")


def docx(data: bytes) -> Iterator[str]:
    """Yield the text of a Word document, with headings, lists, tables, footnotes and text boxes."""
    import defusedxml
    import mammoth

    defusedxml.defuse_stdlib()  # mammoth reads with the parsers of Python
    page = mammoth.convert_to_html(BytesIO(data), convert_image=mammoth.images.img_element(lambda _: {"src": ""}))
    yield letters.markdown(page.value)


def pptx(data: bytes) -> Iterator[str]:
    """Yield the text of a presentation, slide by slide, with tables and notes."""
    import pptx as powerpoint

    said = False
    for number, slide in enumerate(powerpoint.Presentation(BytesIO(data)).slides, 1):
        title = slide.shapes.title
        heading = " ".join(title.text_frame.text.split()) if title is not None else ""
        said |= bool(heading)
        yield f"## Slide {number}" + (f": {heading}" if heading else "") + "\n\n"
        for shape in slide.shapes:
            if title is not None and shape.shape_id == title.shape_id:
                continue
            for text in _shape(shape):
                said = True
                yield text + "\n\n"
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            notes = slide.notes_slide.notes_text_frame.text.strip()
            if notes:
                said = True
                yield f"Notes: {notes}\n\n"
    if not said:
        raise Unusable("there is no text in it")


def _shape(shape: Any) -> Iterator[str]:
    if getattr(shape, "shapes", None) is not None:  # a group
        for inner in shape.shapes:
            yield from _shape(inner)
    elif getattr(shape, "has_table", False):
        yield table([[cell.text for cell in row.cells] for row in shape.table.rows])
    elif getattr(shape, "has_text_frame", False) and shape.text_frame.text.strip():
        lines = [("  " * paragraph.level, paragraph.text) for paragraph in shape.text_frame.paragraphs]
        yield "\n".join(indent + text.replace("\v", "\n") for indent, text in lines if text.strip())


def table(rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown, its first row as head."""
    lines = ["| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) + " |" for row in rows]
    if lines:
        lines.insert(1, re.sub(r"[^|]+", " --- ", lines[0].replace("\\|", "")))
    return "\n".join(lines)


def sheets(data: bytes) -> Iterator[str]:
    """Yield the values of a spreadsheet, sheet by sheet, as lines of CSV; of formulas what they last came to."""
    import python_calamine

    try:
        workbook = python_calamine.load_workbook(BytesIO(data))
    except python_calamine.PasswordError:
        raise Unusable("the spreadsheet is encrypted; send it without a password") from None
    said = False
    for name in workbook.sheet_names:
        rows = workbook.get_sheet_by_name(name).to_python()
        said |= bool(rows)
        yield f"## {name}\n\n"
        for row in rows:
            line = StringIO()
            csv.writer(line, lineterminator="\n").writerow(_cell(cell) for cell in row)
            yield line.getvalue()
        yield "\n"
    if not said:
        raise Unusable("there is no text in it")


def _cell(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, bool):
        return str(value).upper()
    return str(value)
