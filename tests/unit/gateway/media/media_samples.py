"""Sample files, written by the libraries that applications write them with, and fetches of references."""

import array
import base64
import io
import math
import time
from collections.abc import Callable, Collection
from typing import Any

import av
import docx
import fpdf
import pptx
import pytest
import xlsxwriter
from PIL import Image

from gateway.errors import InvalidRequest
from gateway.media.blobs import Blob
from gateway.media.loader import MediaLoader
from gateway.media.sniffing import MediaKind

DOCUMENT: tuple[MediaKind, ...] = ("document",)
IMAGE: tuple[MediaKind, ...] = ("image",)
"""Kinds that a reference may lead to."""


def data_url(data: bytes, media_type: str = "application/octet-stream") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


async def fetch_blob(media: MediaLoader, reference: str, *, param: str, accept: Collection[MediaKind]) -> Blob:
    """Fetch a reference, and return its bytes before they are decoded."""
    budget = media.new_budget("caller")
    return await media._run(param, budget, lambda: media._fetch(reference, accept, budget, allow_base64=False))


async def fetch_error(media: MediaLoader, url: str, *, accept: Collection[MediaKind] = DOCUMENT) -> str:
    """Fetch a reference that must be refused, and return the reason without the prefix that names the parameter."""
    started = time.monotonic()
    with pytest.raises(InvalidRequest) as failure:
        await fetch_blob(media, url, param="messages[0].content[1]", accept=accept)
    assert failure.value.param == "messages[0].content[1]"
    assert time.monotonic() - started < 60
    prefix = "Invalid value for 'messages[0].content[1]': "
    assert failure.value.message.startswith(prefix) and failure.value.message.endswith(".")
    return failure.value.message.removeprefix(prefix)


def image_bytes(form: str = "PNG", size: tuple[int, int] = (40, 30), **options: Any) -> bytes:
    out = io.BytesIO()
    Image.effect_noise(size, 60).convert("RGB").save(out, form, **options)
    return out.getvalue()


def pdf_bytes(*pages: str, **encryption: Any) -> bytes:
    document = fpdf.FPDF()
    document.set_font("helvetica", size=12)
    for text in pages:
        document.add_page()
        document.multi_cell(w=0, text=text)
    if encryption:
        document.set_encryption(**encryption)
    return bytes(document.output())


def word_document() -> Any:
    document = docx.Document()
    document.add_heading("Annual report", 1)
    document.add_paragraph("Sales rose by 12 %.")
    document.add_paragraph("first point", style="List Bullet")
    table = document.add_table(2, 2)
    for at, text in enumerate(["Year", "a|b", "2026", "17"]):
        table.cell(at // 2, at % 2).text = text
    document.add_picture(io.BytesIO(image_bytes()))
    return document


def slide_show() -> Any:
    show = pptx.Presentation()
    slide = show.slides.add_slide(show.slide_layouts[1])
    slide.shapes.title.text = "Plan"
    slide.placeholders[1].text = "Buy\nSell"
    slide.notes_slide.notes_text_frame.text = "Speak slowly"
    slide = show.slides.add_slide(show.slide_layouts[5])
    table = slide.shapes.add_table(2, 2, 0, 0, 10**6, 10**6).table
    for at, text in enumerate(["Item", "Price", "Bolt", "0.10"]):
        table.cell(at // 2, at % 2).text = text
    group = slide.shapes.add_group_shape()
    group.shapes.add_textbox(0, 0, 10**6, 10**6).text_frame.text = "in a group"
    return show


def document_bytes(document: Any) -> bytes:
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def spreadsheet_bytes(fill: Callable[[Any, Any], None]) -> bytes:
    out = io.BytesIO()
    book = xlsxwriter.Workbook(out)
    fill(book, book.add_worksheet("Stock"))
    book.close()
    return out.getvalue()


def audio_tone(container: str, codec: str, *, rate: int = 44_100, seconds: float = 1.0, hertz: float = 440) -> bytes:
    """A sine of half the full scale on the left and none on the right."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, layout="stereo")
        assert isinstance(stream, av.AudioStream)
        count = int(rate * seconds)
        wave = (int(16_384 * math.sin(2 * math.pi * hertz * i / rate)) for i in range(count))
        frame = av.AudioFrame(format="s16", layout="stereo", samples=count)
        frame.sample_rate, frame.pts = rate, 0
        frame.planes[0].update(array.array("h", [value for left in wave for value in (left, 0)]).tobytes())
        stream.codec_context.open()
        resampler = av.AudioResampler(
            format=stream.format.name, layout="stereo", rate=rate, frame_size=stream.frame_size or None
        )
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    return out.getvalue()
