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


def extract_text(data: bytes, media_type: str, *, markup: bool, most: int) -> str:
    """Return the text of a document, at most `most` characters, with tables and headings in Markdown.

    `media_type` was sniffed. `markup` says that a text is declared to be HTML. Raises `InvalidMedia`, and errors of the
    parser for a broken file.
    """
    found, size = [], 0
    for part in _parts(data, media_type, markup, most):
        found.append(part)
        size += len(part)
        if size > most:
            raise InvalidMedia(f"its text is longer than this service takes, {most} characters")
    whole = "".join(found).replace("\r\n", "\n").replace("\0", "")
    whole = whole.encode("utf-8", "replace").decode().strip("\n")
    if not whole.strip():
        raise InvalidMedia("there is no text in it")
    return whole


def _parts(data: bytes, media_type: str, markup: bool, most: int) -> Iterator[str]:
    if media_type == PDF:
        return _pdf(data)
    if media_type == ZIP:
        return _zip(data, most)
    if media_type == OLE:
        return _legacy_office(data, most)
    return iter([plain_text.extract_text(data, markup=markup, most=most)])


def _pdf(data: bytes) -> Iterator[str]:
    import pypdfium2
    import pypdfium2.raw as pdfium

    try:
        document = pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) in (pdfium.FPDF_ERR_PASSWORD, pdfium.FPDF_ERR_SECURITY):
            raise InvalidMedia("the PDF is encrypted; send it without a password") from None
        raise InvalidMedia("the PDF is broken") from None
    empty = True
    if len(document) > _MAX_PAGES:
        raise InvalidMedia(f"the PDF has {len(document)} pages; this service takes up to {_MAX_PAGES}")
    for index in range(len(document)):
        page = document[index]
        words = page.get_textpage().get_text_range()
        page.close()
        # PDFium marks a hyphenated word at the end of a line by these characters.
        words = words.replace("\ufffe", "-").replace("\x02", "-").strip()
        if words:
            yield words + "\n\n"
            empty = False
    if empty:
        pages = "page" if len(document) == 1 else f"{len(document)} pages"
        raise InvalidMedia(f"there is no text on the {pages} of the PDF; it seems to be scanned: send pictures instead")


def _zip(data: bytes, most: int) -> Iterator[str]:
    try:
        archive = zipfile.ZipFile(BytesIO(data))
    except zipfile.BadZipFile:
        raise InvalidMedia("the file is broken or cut off") from None
    with archive:
        parts = archive.infolist()
        if len(parts) > _MAX_PARTS:
            raise InvalidMedia(f"it holds {len(parts)} parts; this service takes up to {_MAX_PARTS}")
        if sum(part.file_size for part in parts) > _MAX_UNPACKED_BYTES:
            raise InvalidMedia(f"unpacked it is larger than this service takes, {_MAX_UNPACKED_BYTES // 2**20} MiB")
        names = {part.filename for part in parts}
        office_documents.check_archive(archive, most=_MAX_UNPACKED_BYTES)
    if "word/document.xml" in names:
        return office_documents.docx_text(data, most=most)
    if "ppt/presentation.xml" in names:
        return office_documents.pptx_text(data)
    if {"xl/workbook.xml", "xl/workbook.bin"} & names:
        return office_documents.spreadsheet_text(data, most=most)
    raise InvalidMedia("it is a ZIP archive, not a document: expected a PDF, DOCX, PPTX, XLSX, HTML or text file")


def _legacy_office(data: bytes, most: int) -> Iterator[str]:
    if "EncryptedPackage".encode("utf-16-le") in data:
        raise InvalidMedia("the document is encrypted; send it without a password")
    if "Workbook".encode("utf-16-le") in data:
        return office_documents.spreadsheet_text(data, most=most)
    raise InvalidMedia("it is a file of an older Office; save it as DOCX, XLSX, PPTX or PDF")
