"""Documents that would occupy a process for long are refused before they are read."""

import asyncio
import base64
import time
import zipfile
from io import BytesIO

import pytest

from gateway.errors import InvalidRequest
from tests.unit.gateway.media.media_samples import slide_show, spreadsheet_bytes

_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def zip_archive(parts: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return out.getvalue()


def word(body: str) -> bytes:
    return zip_archive(
        {"word/document.xml": f'<w:document xmlns:w="{_WORD}"><w:body>{body}</w:body></w:document>'.encode()}
    )


async def read(media, data: bytes, **options) -> str:
    return await media.load_document(base64.b64encode(data).decode(), param="file_data", **options)


async def refusal_message(media, data: bytes, **options) -> str:
    with pytest.raises(InvalidRequest) as failure:
        await read(media, data, **options)
    assert failure.value.param == "file_data"
    return failure.value.message


@pytest.mark.parametrize("piece", ["<a ", "<!--", "<p>x</p>"])
async def test_too_many_tags_of_a_page_are_refused(media, piece):
    page = (piece * 330_000).encode()
    assert "more tags than the limit of 300000" in await refusal_message(media, page, filename="a.html")


async def test_too_many_parts_of_an_archive_are_refused(media):
    assert (
        "up to its part 'word/document.xml', the document has more tags than the limit of 400000"
        in await refusal_message(media, word("<w:p/>" * 2_000_000))
    )
    spread = zip_archive({f"word/{i}.xml": b"<a/>" * 90_000 for i in range(5)} | {"word/document.xml": b"<a/>"})
    assert "up to its part 'word/4.xml'" in await refusal_message(media, spread)
    assert "more bytes of XML" in await refusal_message(media, word(" " * (65 * 2**20)))
    many = zip_archive({str(i): b"" for i in range(20_001)}, zipfile.ZIP_STORED)
    assert "it contains 20001 parts; the limit is 20000" in await refusal_message(media, many)


async def test_declared_sizes_of_an_archive_are_not_trusted(media):
    data = word("<w:p/>" * 100)
    size = len(f'<w:document xmlns:w="{_WORD}"><w:body></w:body></w:document>') + 600
    assert data.count(size.to_bytes(4, "little")) == 2
    assert "damaged or truncated" in await refusal_message(
        media, data.replace(size.to_bytes(4, "little"), bytes([9, 0, 0, 0]))
    )
    packing = zip_archive({"word/document.xml": b"x"}, zipfile.ZIP_BZIP2)
    assert "compression method that Office documents do not use" in await refusal_message(media, packing)


async def test_a_sheet_with_too_many_cells_is_refused(make_media):
    def fill(height):
        def write(book, first):
            first.write(0, 0, "a")
            first.write(height - 1, 9, "z")

        return write

    media = make_media(document_max_characters=1000)
    assert "its sheet 'Stock' has 101 rows of 10 cells; the limit is 1000 cells" in await refusal_message(
        media, spreadsheet_bytes(fill(101))
    )
    assert (await read(media, spreadsheet_bytes(fill(90)))).endswith(",z")


def pdf(pages: int) -> bytes:
    kids = " ".join(f"{3 + i} 0 R" for i in range(pages))
    objects = ["<</Type/Catalog/Pages 2 0 R>>", f"<</Type/Pages/Count {pages}/Kids[{kids}]>>"]
    objects += ["<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>"] * pages
    body = "".join(f"{number} 0 obj\n{text}\nendobj\n" for number, text in enumerate(objects, 1))
    return f"%PDF-1.7\n{body}trailer<</Root 1 0 R>>\n%%EOF".encode()


async def test_too_many_pages_are_refused(media):
    assert "the PDF has 10001 pages; the limit is 10000" in await refusal_message(media, pdf(10_001))
    assert "no text (pages: 10000)" in await refusal_message(media, pdf(10_000))


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<p>x" + "<!--" * 20_000, None),
        ("<p>x" + "<![CDATA[" * 20_000, None),
        ("<p>x" + "<a b " * 20_000, None),
        ("<ol>" + "<li>x</li>" * 20_000, "20000. x"),
        ("<p>x" + "<img alt=x>" * 20_000, "x" * 20_001),
        ("<p>x</p><script></script>" * 20_000 + "<p>end", "end"),
        ("<table><tr><td>" + "a|<b>c</b>" * 20_000, "a\\|**c** |\n| --- |"),
        ("<p>x" + "<br></p>" * 20_000 + "end", "end"),
        ("<table><thead>" + "<tr><td>x</td></tr>" * 20_000, "| x |"),
        ("<table>" + "<tbody><tr><td>x</td></tr></tbody>" * 20_000, "| x |"),
    ],
    ids=["comments", "sections", "tags", "items", "pictures", "scripts", "cells", "breaks", "rows", "bodies"],
)
async def test_pages_are_converted_in_linear_time(make_media, page, text):
    """A step that scans the rest of the page for each element would exceed the timeout on each of these."""
    media = make_media(document_timeout=15.0)
    document = await read(media, page.encode(), filename="a.html")
    assert document.endswith(text) if text else document.startswith("x")


async def test_markers_of_nested_quotations_count_as_text(media):
    page = "<blockquote>" * 90 + "x<br>" * 90_000
    assert "text is longer than the limit of 1000000" in await refusal_message(media, page.encode(), filename="a.html")


async def test_a_table_of_many_rows_on_a_slide_is_read(make_media):
    import copy

    show = slide_show()
    rows = next(shape for shape in show.slides[1].shapes if shape.has_table).table._tbl
    last = rows.tr_lst[-1]
    for _ in range(20_000):
        last.addnext(copy.deepcopy(last))
    out = BytesIO()
    show.save(out)
    assert (await read(make_media(document_timeout=15.0), out.getvalue())).count("| Bolt | 0.10 |") == 20_001


async def test_documents_of_one_request_are_decoded_one_after_another(media):
    """So a request with many slow ones leaves a place to the others."""
    slow = ("<html>" + "<p>words <b>more</b></p>" * 20_000).encode()
    budget = media.new_budget()
    many = [asyncio.create_task(read(media, slow, budget=budget)) for _ in range(4)]
    await asyncio.sleep(0.3)
    assert await read(media, b"quick") == "quick"
    assert not any(task.done() for task in many[1:])
    started = time.monotonic()
    await media.close()
    results = await asyncio.gather(*many, return_exceptions=True)
    assert not any(isinstance(result, str) for result in results[1:])
    assert time.monotonic() - started < 60
