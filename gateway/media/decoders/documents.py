"""Extraction of text from documents."""

import zipfile
from collections.abc import Iterator
from io import BytesIO

from gateway.media.decoders import office_documents, plain_text
from gateway.media.invalid_media import InvalidMedia
from gateway.media.sniffing import OLE, PDF, ZIP

_MAX_UNPACKED_BYTES = 256 * 2**20
_MAX_PARTS = 20_000
_MAX_PAGES = 10_000


def extract_text(data: bytes, media_type: str, *, is_html: bool, max_characters: int) -> str:
    """Return the text of a document, at most `max_characters` characters, with tables and headings in Markdown.

    `media_type` was sniffed. `is_html`: the sender declared a text to be HTML. Raises `InvalidMedia`, and errors of the
    parser for a damaged file.
    """
    found, size = [], 0
    for part in _parts(data, media_type, is_html, max_characters):
        found.append(part)
        size += len(part)
        if size > max_characters:
            raise InvalidMedia(f"its text is longer than the limit of {max_characters} characters")
    whole = "".join(found).replace("\r\n", "\n").replace("\0", "")
    whole = whole.encode("utf-8", "replace").decode().strip("\n")
    if not whole.strip():
        raise InvalidMedia("it contains no text")
    return whole


def _parts(data: bytes, media_type: str, is_html: bool, max_characters: int) -> Iterator[str]:
    if media_type == PDF:
        return _pdf(data)
    if media_type == ZIP:
        return _zip(data, max_characters)
    if media_type == OLE:
        return _legacy_office(data, max_characters)
    return iter([plain_text.extract_text(data, declared_html=is_html, max_characters=max_characters)])


def _pdf(data: bytes) -> Iterator[str]:
    import pypdfium2
    import pypdfium2.raw as pdfium

    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) in (pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY):
            raise InvalidMedia("the PDF is encrypted; send it without a password") from None
        raise InvalidMedia("the PDF is damaged") from None
    empty = True
    if len(document) > _MAX_PAGES:
        raise InvalidMedia(f"the PDF has {len(document)} pages; the limit is {_MAX_PAGES}")
    for index in range(len(document)):
        page = document[index]
        words = page.get_textpage().get_text_range()
        page.close()
        # PDFium marks a word that is hyphenated at the end of a line with these characters.
        words = words.replace("\ufffe", "-").replace("\x02", "-").strip()
        if words:
            yield words + "\n\n"
            empty = False
    if empty:
        raise InvalidMedia(f"the PDF has no text (pages: {len(document)}); if its pages are scans, send them as images")


def _zip(data: bytes, max_characters: int) -> Iterator[str]:
    try:
        archive = zipfile.ZipFile(BytesIO(data))
    except zipfile.BadZipFile:
        raise InvalidMedia("the file is damaged or truncated") from None
    with archive:
        parts = archive.infolist()
        if len(parts) > _MAX_PARTS:
            raise InvalidMedia(f"it contains {len(parts)} parts; the limit is {_MAX_PARTS}")
        if sum(part.file_size for part in parts) > _MAX_UNPACKED_BYTES:
            raise InvalidMedia(f"unpacked, it is larger than the limit of {_MAX_UNPACKED_BYTES // 2**20} MiB")
        names = {part.filename for part in parts}
        office_documents.check_archive(archive, max_bytes=_MAX_UNPACKED_BYTES)
    if "word/document.xml" in names:
        return office_documents.docx_text(data, max_characters=max_characters)
    if "ppt/presentation.xml" in names:
        return office_documents.pptx_text(data)
    if {"xl/workbook.xml", "xl/workbook.bin"} & names:
        return office_documents.spreadsheet_text(data, max_characters=max_characters)
    raise InvalidMedia("it is a ZIP archive, not a document: expected a PDF, DOCX, PPTX, XLSX, HTML or text file")


def _legacy_office(data: bytes, max_characters: int) -> Iterator[str]:
    if "EncryptedPackage".encode("utf-16-le") in data:
        raise InvalidMedia("the document is encrypted; send it without a password")
    if "Workbook".encode("utf-16-le") in data:
        return office_documents.spreadsheet_text(data, max_characters=max_characters)
    raise InvalidMedia("it is in an older Office format; save it as DOCX, XLSX, PPTX or PDF")
