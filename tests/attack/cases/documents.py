"""Attacks by documents that decompress to gigabytes or take long to parse. tests/unit/gateway/media tests each."""

import base64
import io
import zipfile
from collections.abc import Callable
from functools import cache, partial

from tests.attack.cases.case import REFUSAL_STATUSES, Attack, AttackCase, Target
from tests.attack.cases.media_references import CHAT, document_chat

_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


@cache
def _prepared(data: Callable[[], bytes]) -> bytes:
    return data()


def zip_archive(parts: dict[str, bytes]) -> bytes:
    """Return a ZIP archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return out.getvalue()


def _word(body: bytes) -> bytes:
    return zip_archive({"word/document.xml": b'<w:document xmlns:w="%b"><w:body>%b</w:body></w:document>'
                   % (_WORD.encode(), body)})  # fmt: skip


def _billion_laughs() -> bytes:
    entities = "".join(f'<!ENTITY a{n + 1} "{f"&a{n};" * 10}">' for n in range(9))
    return zip_archive({"word/document.xml": f'<!DOCTYPE x [<!ENTITY a0 "ha">{entities}]><x>&a9;</x>'.encode()})


def _pdf() -> bytes:
    """Return a PDF with 9,000 pages, whose page tree is its own parent."""
    kids = " ".join(f"{3 + n} 0 R" for n in range(9000))
    objects = ["<</Type/Catalog/Pages 2 0 R>>", f"<</Type/Pages/Count 9000/Kids[{kids}]/Parent 2 0 R>>"]
    objects += ["<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>"] * 9000
    body = "".join(f"{number} 0 obj\n{text}\nendobj\n" for number, text in enumerate(objects, 1))
    return f"%PDF-1.7\n{body}trailer<</Root 1 0 R>>\n%%EOF".encode()


def chat_with_document(data: Callable[[], bytes], name: str = "a.docx", times: int = 1) -> Attack:
    """Send `times` chats about a document at once."""

    def attack(target: Target) -> None:
        body = document_chat(base64.b64encode(_prepared(data)).decode(), name)
        target.run_concurrently(times, lambda _: target.json(CHAT, body, timeout=90))

    return attack


def _slow_page() -> bytes:
    """Return a page that takes about a second to parse."""
    return b"<html>" + b"<p>words <b>more</b></p>" * 20_000


_DOCUMENTS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a bomb of spaces": (lambda: _word(b" " * (200 * 2**20)), "a.docx"),
    "a bomb of tags": (lambda: _word(b"<w:p/>" * 2_000_000), "a.docx"),
    "entities in entities": (_billion_laughs, "a.docx"),
    "tags in tags": (lambda: _word(b"<w:p>" * 200_000), "a.docx"),
    "a page of tags in tags": (lambda: b"<div>" * 250_000, "a.html"),
    "a PDF of many pages": (_pdf, "a.pdf"),
}
_HONEST_REQUESTS = ("chat", "document")
CASES = [
    *(AttackCase(f"documents: {name}", chat_with_document(data, file_name), (200, *REFUSAL_STATUSES),
    honest_requests=("chat",),
           prepare=partial(_prepared, data))
      for name, (data, file_name) in _DOCUMENTS.items()),
    AttackCase("documents: six heavy ones at once", chat_with_document(_slow_page, "a.html", 6), (200,
    *REFUSAL_STATUSES), honest_requests=_HONEST_REQUESTS, runs_on_two_workers=True,
         prepare=partial(_prepared, _slow_page)),
]  # fmt: skip
