"""Documents of every kind become text, and what cannot is refused with a reason."""

import asyncio
import base64
import contextlib
import io
import time
import zipfile

import psutil
import pytest

from gateway.errors import InvalidRequest
from tests.unit.gateway.media.media_samples import (
    audio_tone,
    data_url,
    document_bytes,
    image_bytes,
    pdf_bytes,
    slide_show,
    spreadsheet_bytes,
    word_document,
)


async def read(media, data: bytes, filename: str | None = None) -> str:
    return await media.load_document(base64.b64encode(data).decode(), filename=filename, param="file_data")


async def refusal_message(media, data: bytes, filename: str | None = None) -> str:
    with pytest.raises(InvalidRequest) as failure:
        await read(media, data, filename)
    assert failure.value.param == "file_data"
    return failure.value.message


async def test_pdf(media):
    text = await read(media, pdf_bytes("Invoice 17: café", "Total 99.50 EUR"))
    assert text == "Invoice 17: café\n\nTotal 99.50 EUR"


async def test_pdf_that_needs_no_password_though_encrypted(media):
    assert await read(media, pdf_bytes("open to read", owner_password="o")) == "open to read"


async def test_pdf_that_cannot_be_read(media):
    assert "encrypted" in await refusal_message(media, pdf_bytes("x", owner_password="o", user_password="u"))
    assert "the PDF has no text (pages: 1); if its pages are scans" in await refusal_message(media, pdf_bytes(""))
    assert "no text (pages: 2)" in await refusal_message(media, pdf_bytes("", ""))
    assert "damaged" in await refusal_message(media, pdf_bytes("x")[:200])
    assert "damaged" in await refusal_message(media, b"%PDF-1.7\n" + bytes(range(256)) * 40)


async def test_word(media):
    text = await read(media, document_bytes(word_document()))
    assert text.splitlines() == [
        "# Annual report", "", "Sales rose by 12 %.", "", "- first point", "",
        "| Year | a\\|b |", "| --- | --- |", "| 2026 | 17 |",
    ]  # fmt: skip


async def test_slides(media):
    text = await read(media, document_bytes(slide_show()))
    assert text == (
        "## Slide 1: Plan\n\nBuy\nSell\n\nNotes: Speak slowly\n\n"
        "## Slide 2\n\n| Item | Price |\n| --- | --- |\n| Bolt | 0.10 |\n\nin a group"
    )


async def test_spreadsheet(media):
    def fill(book, first):
        first.write_row(0, 0, ["Name", "Count", "Ready"])
        first.write_row(1, 0, ['Bolt, "M4"', 3, True])
        first.write(2, 1, 2.5)
        first.write_formula(3, 1, "=SUM(B2:B3)", None, 5.5)
        first.write_datetime(
            4, 0, __import__("datetime").datetime(2026, 3, 1), book.add_format({"num_format": "yyyy-mm-dd"})
        )
        book.add_worksheet("Other").write(0, 0, "line\nbreak")

    text = await read(media, spreadsheet_bytes(fill))
    assert text == (
        '## Stock\n\nName,Count,Ready\n"Bolt, ""M4""",3,TRUE\n,2.5,\n,5.5,\n2026-03-01,,\n\n## Other\n\n"line\nbreak"'
    )


async def test_html(media):
    page = (
        "<!-- x --><!DOCTYPE html><html><head><title>News</title><style>p{}</style></head><body><h2>To_day</h2>"
        "<script>alert(1)</script><p>Rain <b>soon</b>, see <a href='/map'>map</a>.<img src='data:,x' alt='a cloud'></p>"
        "<table><tr><th>a</th><th>b</th></tr><tr><td>1|2</td><td>3</td></tr></table></body></html>"
    )
    text = await read(media, page.encode())
    assert text == (
        "# News\n\n## To_day\n\nRain **soon**, see [map](/map).a cloud\n\n| a | b |\n| --- | --- |\n| 1\\|2 | 3 |"
    )
    assert await read(media, b"<p>only a part</p>", "part.HTML") == "only a part"
    assert await media.load_document("data:text/html,%3Cp%3Ehi%3C/p%3E", param="p") == "hi"


@pytest.mark.parametrize(
    "text",
    [
        "# Title\n\n* a <b>\n", 'a,b\n"1|2",3\n', '{"a": [1, 2]}', "def f(x):\n\treturn x\n", "BMW is a car\n",
        "GIF89a is a format\n", "Привет, мир", "\x1b[31mred\x1b[0m log line\n", "<svg xmlns='x'/>",
    ],
)  # fmt: skip
async def test_text_stays_as_it_is(media, text):
    assert await read(media, text.encode()) == text.strip("\n")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "cp1252"])
async def test_encodings(media, encoding):
    text = "Die Prüfung der größeren Häuser wäre für später möglich, sagte er über die Straße hinweg."
    assert await read(media, text.encode(encoding)) == text


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (image_bytes(), "of the type image/png"),
        (audio_tone("wav", "pcm_s16le", seconds=0.1), "of the type audio/wav"),
        (b"\x7fELF" + bytes(100), "expected a document"),
        (bytes(range(256)) * 10, "its format is unknown"),
        (b"\0\1\2\3" * 50, "its format is unknown"),
        (rb"{\rtf1 hello}", "application/rtf"),
        (b"PK\x03\x04 and no more", "damaged or truncated"),
        (bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600), "older Office"),
        (bytes.fromhex("d0cf11e0a1b11ae1") + "EncryptedPackage".encode("utf-16-le"), "encrypted"),
        (b" \n\t\n", "contains no text"),
    ],
)
async def test_other_files_are_refused(media, data, reason):
    assert reason in await refusal_message(media, data)


async def test_empty_references_are_refused(media):
    for reference, reason in (
        ("data:application/pdf;base64,", "the file is empty"),
        ("data:application/pdf;base64", "has no comma"),
        ("data:application/pdf;base64,%%%", "not valid base64"),
        ("not base64 at all!", "not valid base64"),
        ("ftp://x/y", "expected an http or https URL"),
    ):
        with pytest.raises(InvalidRequest, match=reason):
            await media.load_document(reference, param="p")


async def test_common_spellings_of_base64_are_decoded(media):
    data = "ÿ?>~ text, padded or not".encode()
    plain = base64.b64encode(data).decode()
    lines = "\n".join(plain[at : at + 10] for at in range(0, len(plain), 10))
    for form in (plain, plain.rstrip("="), base64.urlsafe_b64encode(data).decode(), lines, plain.replace("/", "%2F")):
        assert await media.load_document(f"data:;base64,{form}", param="p") == data.decode()


def zip_archive(**parts: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name.replace("__", "/"), data)
    return out.getvalue()


async def test_decompression_bombs_are_refused(media):
    assert "ZIP archive, not a document" in await refusal_message(media, zip_archive(**{"a.txt": b"x"}))
    assert "unpacked, it is larger" in await refusal_message(
        media, zip_archive(**{"word/document.xml": bytes(300 * 2**20)})
    )
    laughs = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><w>&b;</w>'
    for name in ("word/document.xml", "ppt/presentation.xml", "xl/workbook.xml"):
        assert "XML entities" in await refusal_message(media, zip_archive(**{name: laughs}))
        assert "XML entities" in await refusal_message(media, zip_archive(**{name: laughs.decode().encode("utf-16")}))
    assert "damaged" in await refusal_message(media, zip_archive(**{"word/document.xml": b"<w>"}))
    nested = "<html>" + "<div>" * 100_000
    with pytest.raises(InvalidRequest):
        await media.load_document(data_url(nested.encode()), param="p")


async def test_a_sheet_with_too_many_columns_is_refused(media):
    def fill(book, first):
        first.write(0, 0, "a")
        first.write(1_048_575, 16_383, "z")

    assert "memory" in await refusal_message(media, spreadsheet_bytes(fill))


async def test_long_documents_are_refused(make_media):
    media = make_media(document_max_characters=1000)
    assert await read(media, b"a" * 1000) == "a" * 1000
    assert "longer than the limit of 1000 characters" in await refusal_message(media, b"a" * 1001)
    assert "longer" in await refusal_message(media, pdf_bytes(*["many words " * 20] * 10))


async def test_a_document_that_takes_too_long_is_given_up(make_media):
    media = make_media(document_timeout=0.6)
    endless = ("<html>" + "<p>words <b>more</b></p>" * 70_000).encode()
    media._document_pool._wall_timeout = 120.0  # others work on this machine
    started = time.monotonic()
    assert "within 0.6 seconds" in await refusal_message(media, endless)
    assert time.monotonic() - started < 90
    await wait_until_processes_end()


async def test_a_disconnect_ends_the_decoding_process(media):
    endless = ("<html>" + "<p>words <b>more</b></p>" * 70_000).encode()
    reading = asyncio.create_task(read(media, endless))
    while not decoding_processes():
        await asyncio.sleep(0.01)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await wait_until_processes_end()


async def test_no_more_documents_are_decoded_at_a_time_than_allowed(make_media):
    media = make_media(document_workers=1)
    most, done = 0, asyncio.Event()

    async def watch():
        nonlocal most
        while not done.is_set():
            most = max(most, len(decoding_processes()))
            await asyncio.sleep(0.005)

    watching = asyncio.create_task(watch())
    slow = "<html>" + "<p>words <b>more</b></p>" * 3000
    texts = await asyncio.gather(*(read(media, f"{slow}text {n}".encode()) for n in range(4)))
    done.set()
    await watching
    assert [text[-6:] for text in texts] == ["text 0", "text 1", "text 2", "text 3"] and most == 1


async def wait_until_processes_end() -> None:
    async with asyncio.timeout(30):
        while decoding_processes():
            await asyncio.sleep(0.01)


def decoding_processes() -> list[psutil.Process]:
    """Return the processes that decode documents now."""
    processes = []
    for child in psutil.Process().children():
        # Other tests may have left processes of their own: multiprocessing keeps one to the end.
        with contextlib.suppress(psutil.NoSuchProcess):  # it ends while we look
            if "gateway.media.decoders" in child.cmdline():
                processes += child.children()
    return processes
