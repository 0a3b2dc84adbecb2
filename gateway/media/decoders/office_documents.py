"""Extraction of text from Office documents: Word, PowerPoint, and all kinds of spreadsheets."""

import csv
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO, StringIO
from typing import Any

from gateway.media.invalid_media import InvalidMedia

_XML_PROLOG_BYTES = 4096
_CHUNK_BYTES = 1 << 20
_MAX_TAGS = {"word/": 400_000, "ppt/": 1_000_000}
"""Most `<` in all XML of a document, by folder: about what can be parsed within the default timeout."""
_MAX_XML_BYTES = {"word/": 64 * 2**20, "ppt/": 64 * 2**20}
_XML_SUFFIXES = (".xml", ".rels", ".vml")


def check_archive(archive: zipfile.ZipFile, *, max_bytes: int) -> None:
    """Decompress all parts once, and raise `InvalidMedia` for decompression bombs and documents that are too large.

    All parts together may have `max_bytes` bytes. The sizes that the archive declares are not trusted.
    """
    bytes_left = max_bytes
    tags, sizes = Counter[str](), Counter[str]()
    for part in archive.infolist():
        if part.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InvalidMedia("the file uses a compression method that Office documents do not use")
        folder, markup = part.filename.partition("/")[0] + "/", part.filename.endswith(_XML_SUFFIXES)
        declared, part.file_size = part.file_size, bytes_left + 1  # `zipfile` stops there
        unpacked, prolog = 0, b""
        with archive.open(part) as opened:
            while piece := opened.read(_CHUNK_BYTES):
                unpacked += len(piece)
                if unpacked > bytes_left:
                    raise InvalidMedia(f"unpacked, it is larger than the limit of {max_bytes // 2**20} MiB")
                if not markup:
                    continue
                prolog = prolog or piece[:_XML_PROLOG_BYTES]
                tags[folder] += piece.count(b"<")
                sizes[folder] += len(piece)
                for count, limits, unit in ((tags, _MAX_TAGS, "tags"), (sizes, _MAX_XML_BYTES, "bytes of XML")):
                    if count[folder] > limits.get(folder, max_bytes):
                        raise InvalidMedia(
                            f"up to its part '{part.filename[:100]}', the document has more {unit} than the limit of"
                            f" {limits[folder]}"
                        )
        if unpacked != declared:
            raise InvalidMedia("the file is damaged or truncated")
        bytes_left -= unpacked
        # Office writes no document types or entities, so these are entity-expansion bombs.
        prolog_text = prolog.replace(b"\0", b"").upper()  # in UTF-16 too
        if b"<!DOCTYPE" in prolog_text or b"<!ENTITY" in prolog_text:
            raise InvalidMedia("the file declares XML entities, which Office documents do not use")


def docx_text(data: bytes, *, max_characters: int) -> Iterator[str]:
    """Yield the text of a Word document, with headings, lists, tables, footnotes and text boxes."""
    import defusedxml
    import mammoth

    from gateway.media.decoders.html_pages import html_to_markdown

    defusedxml.defuse_stdlib()  # mammoth uses the XML parsers of Python
    page = mammoth.convert_to_html(BytesIO(data), convert_image=mammoth.images.img_element(lambda _: {"src": ""}))
    yield html_to_markdown(page.value, max_characters=max_characters)


def pptx_text(data: bytes) -> Iterator[str]:
    """Yield the text of a presentation, slide by slide, with tables and notes. Raises `InvalidMedia` for no text."""
    import pptx as powerpoint

    has_text = False
    for number, slide in enumerate(powerpoint.Presentation(BytesIO(data)).slides, 1):
        title = slide.shapes.title
        heading = " ".join(title.text_frame.text.split()) if title is not None else ""
        has_text |= bool(heading)
        yield f"## Slide {number}" + (f": {heading}" if heading else "") + "\n\n"
        for shape in slide.shapes:
            if title is not None and shape.shape_id == title.shape_id:
                continue
            for text in _shape_text(shape):
                has_text = True
                yield text + "\n\n"
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            notes = slide.notes_slide.notes_text_frame.text.strip()
            if notes:
                has_text = True
                yield f"Notes: {notes}\n\n"
    if not has_text:
        raise InvalidMedia("it contains no text")


def _shape_text(shape: Any) -> Iterator[str]:
    if getattr(shape, "shapes", None) is not None:  # a group
        for inner in shape.shapes:
            yield from _shape_text(inner)
    elif getattr(shape, "has_table", False):
        yield markdown_table(_table_rows(shape.table))
    elif getattr(shape, "has_text_frame", False) and shape.text_frame.text.strip():
        lines = [("  " * paragraph.level, paragraph.text) for paragraph in shape.text_frame.paragraphs]
        yield "\n".join(indent + text.replace("\v", "\n") for indent, text in lines if text.strip())


def _table_rows(grid: Any) -> Iterator[list[str]]:
    """Yield the texts of the cells by row. The library's `rows` searches all rows for each row."""
    from pptx.table import _Cell

    for row in grid._tbl.tr_lst:
        yield [_Cell(cell, grid).text for cell in row.tc_lst]


def markdown_table(rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown, with the first row as head."""
    lines = ["| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) + " |" for row in rows]
    if lines:
        lines.insert(1, re.sub(r"[^|]+", " --- ", lines[0].replace("\\|", "")))
    return "\n".join(lines)


def spreadsheet_text(data: bytes, *, max_characters: int) -> Iterator[str]:
    """Yield the values of a spreadsheet, sheet by sheet, as lines of CSV, with the stored results of formulas.

    Refuses a sheet of more than `max_characters` cells, empty ones included: its text would have more characters.
    Raises `InvalidMedia`.
    """
    import python_calamine

    try:
        workbook = python_calamine.load_workbook(BytesIO(data))
    except python_calamine.PasswordError:
        raise InvalidMedia("the spreadsheet is encrypted; send it without a password") from None
    has_text = False
    for name in workbook.sheet_names:
        sheet = workbook.get_sheet_by_name(name)
        if sheet.height * sheet.width > max_characters:
            raise InvalidMedia(
                f"its sheet '{name[:100]}' has {sheet.height} rows of {sheet.width} cells; the limit is"
                f" {max_characters} cells"
            )
        rows = sheet.to_python()
        has_text |= bool(rows)
        yield f"## {name}\n\n"
        for row in rows:
            line = StringIO()
            csv.writer(line, lineterminator="\n").writerow(_format_cell(cell) for cell in row)
            yield line.getvalue()
        yield "\n"
    if not has_text:
        raise InvalidMedia("it contains no text")


def _format_cell(value: Any) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    if isinstance(value, bool):
        return str(value).upper()
    return str(value)
