"""Forms, in whatever way they are written, and what none may be."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidRequest
from gateway.http.forms import Form, Upload, parse

BODY = (
    b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nein gr\xc3\xb6\xc3\x9ferer Kreis\r\n'
    b'--b\r\nContent-Disposition: form-data; name="image[]"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    b"\x89PNG\r\n\x1a\n--b\r\n\r\n"
    b'--b\r\nContent-Disposition: form-data; name="mask"; filename=""\r\n\r\n\r\n'
    b'--b\r\nContent-Disposition: form-data; name="n"\r\n\r\n1\r\n'
    b'--b\r\nContent-Disposition: form-data; name="n"\r\n\r\n2\r\n'
    b"--b--\r\n"
)


TYPE = "multipart/form-data; boundary=b"
MB = 1024 * 1024


def test_a_form() -> None:
    # A file that a browser's form leaves out has neither a name nor content.
    form = parse(TYPE, BODY)
    assert isinstance(form, Form)
    assert form == {
        "prompt": "ein größerer Kreis",
        "image": [Upload(b"\x89PNG\r\n\x1a\n--b\r\n", "a.png")],
        "n": ["1", "2"],
    }


def part(headers: bytes, content: bytes = b"x") -> bytes:
    return b"--b\r\n" + headers + b"\r\n\r\n" + content + b"\r\n--b--\r\n"


def field(name: bytes, more: bytes = b"") -> bytes:
    return b"Content-Disposition: form-data; name=" + name + more


@pytest.mark.parametrize(
    ("body", "form"),
    [
        (b"\r\n" + part(field(b"a")), {"a": "x"}),
        (part(b"content-disposition:form-data;NAME = a"), {"a": "x"}),
        (part(b"X-Other: y\r\n" + field(b'"a"')), {"a": "x"}),
        (part(field(b'"a;b=\\"c"')), {'a;b="c': "x"}),
        (part(field(b'"gr\xc3\xb6\xc3\x9fe"')), {"größe": "x"}),
        (part(field(b"a", b"; filename=\"\""), b"x"), {"a": Upload(b"x", "")}),
        (part(field(b"a", b"; filename=\"\xf6.png\"")), {"a": Upload(b"x", "\ufffd.png")}),
        # A part that is no text is a file, also without a name.
        (part(b"Content-Type: image/png\r\n" + field(b"a"), b"\x89PNG"), {"a": Upload(b"\x89PNG", "")}),
        (part(field(b"a") + b"\r\ncontent-type: APPLICATION/octet-stream", b"\xff"), {"a": Upload(b"\xff", "")}),
        (part(b"Content-Type: image/png\r\n" + field(b"a"), b""), {}),
        (part(b"Content-Type: text/plain\r\n" + field(b"a"), b"x"), {"a": "x"}),
        (part(b"Content-Type: application/json\r\n" + field(b"a"), b"7"), {"a": "7"}),
        # RFC 7578 forbids the extended form; what it says of charsets is not read.
        (part(field(b"a", b"; filename*=punycode''b.png")), {"a": "x"}),
        (part(field(b"a"), b"\r\n--bar\r\n--b \t-\r\n"), {"a": "\r\n--bar\r\n--b \t-\r\n"}),
        (part(field(b"a"), b""), {"a": ""}),
        (part(field(b"a")).replace(b"\r\n--b--", b"\r\n--b \t\r\n" + field(b"c") + b"\r\n\r\ny\r\n--b--epilogue"),
         {"a": "x", "c": "y"}),
        (b"--b--", {}),
    ],
)  # fmt: skip
def test_spellings_of_a_form_are_equal(body: bytes, form: Form) -> None:
    assert parse(TYPE, body) == form
    assert parse('Multipart/Form-Data;charset=UTF-8; BOUNDARY="b"', bytearray(body)) == form


def refusal(body: bytes, content_type: str = TYPE) -> str:
    with pytest.raises(InvalidRequest) as refused:
        parse(content_type, body)
    assert len(refused.value.message) < 300
    return refused.value.message


@given(st.integers(0, len(BODY) - 4))
@settings(deadline=None)
def test_a_form_that_is_cut_off_is_refused(end: int) -> None:
    """The missing part may be the image to edit."""
    assert "it ends before its closing boundary" in refusal(BODY[:end])


CODECS = ["punycode", "idna", "utf-7", "unicode_escape", "raw_unicode_escape", "zlib_codec", "bz2", "rot13", "hex",
          "base64", "undefined", "utf-16", "utf_8_sig", "latin-1", "iso-8859-1", "mbcs", "x" * 900]  # fmt: skip


@pytest.mark.parametrize("charset", CODECS)
def test_there_is_no_charset_but_utf_8(charset: str) -> None:
    text = part(field(b"prompt"), b"\\ud800 a-b c")
    assert "must be UTF-8" in refusal(text, f"{TYPE}; charset={charset}")
    assert "must be UTF-8" in refusal(
        part(field(b"prompt") + f"\r\nContent-Type: text/plain; charset={charset}".encode())
    )
    assert "must be UTF-8" in refusal(part(field(b"_charset_"), charset.encode()))


@pytest.mark.parametrize("charset", ["utf-8", "UTF8", '"utf-8"', "us-ascii", "ASCII"])
def test_spellings_of_utf_8(charset: str) -> None:
    text = part(field(b"a") + f"\r\nContent-Type: text/plain; charset={charset}".encode(), "ö".encode())
    assert parse(f"{TYPE}; charset={charset}", text) == {"a": "ö"}
    # Of a file, nobody reads the text.
    file = part(field(b"a", b"; filename=b") + b"\r\nContent-Type: text/plain; charset=punycode")
    assert parse(TYPE, file) == {"a": Upload(b"x", "b")}


def repeated_parts(headers: bytes, count: int) -> bytes:
    return b"".join([part(headers).removesuffix(b"--b--\r\n")] * count) + b"--b--"


WRONG = {
    "its text is not UTF-8": (part(field(b"a"), b"\xff"), "field 'a' is not UTF-8"),
    "its name is not UTF-8": (part(field(b"\xff")), "name of a part is not UTF-8"),
    "no name": (part(b"Content-Disposition: form-data"), "must give its name"),
    "no disposition": (part(b"X: y"), "must give its name"),
    "no headers": (b"--b\r\n\r\nx\r\n--b--", "must give its name"),
    "no part": (b"--b\r\n--b--", "no headers"),
    "no end of headers": (b"--b\r\nX: y\r\n--b--", "headers of a part do not end"),
    "not a header": (part(b"X y"), "a header of a part is malformed"),
    "a folded header": (part(field(b"a") + b"\r\n more: x"), "a header of a part is malformed"),
    "many headers": (part(b"\r\n".join([b"X: y"] * 17)), "more than 16 headers"),
    "long headers": (part(field(b"a") + b"\r\nX: " + b"y" * 8192), "within 8192 bytes"),
    "many fields": (repeated_parts(field(b"a"), 65), "64 fields"),
    "many files": (repeated_parts(field(b"a", b"; filename=b"), 33), "32 files"),
    "another beginning": (b"hello" + part(field(b"a")), "does not begin with its boundary"),
    "JSON": (b"{}", "does not begin with its boundary"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_malformed_forms_are_refused(name: str) -> None:
    body, message = WRONG[name]
    assert message in refusal(body)


@pytest.mark.parametrize("boundary", ["", '""', "ö", "x" * 201, '"a\r\nb"', "x" * 5000])
def test_invalid_boundaries_are_refused(boundary: str) -> None:
    assert refusal(BODY, f"multipart/form-data; boundary={boundary}")


COSTLY = {
    "lines that begin as the boundary does": part(field(b"a"), b"\r\n--bX" * (4 * MB // 6)),
    "beginnings of boundaries": part(field(b"a"), b"\r\n--" * MB),
    "line breaks": part(field(b"a"), b"\r\n" * (2 * MB)),
    "line breaks at first": b"\r\n" * (2 * MB) + part(field(b"a")),
    "padding of a boundary": part(field(b"a"), b"\r\n--b" + b" " * (4 * MB)),
    "paddings of boundaries": part(field(b"a"), (b"\r\n--b" + b" " * 60) * (4 * MB // 65)),
    "an epilogue": part(field(b"a")) + b"\r\n--b\r\n" * (MB // 2),
    "headers without an end": b"--b\r\n" + b"X: y\r\n" * (MB // 2),
    "a header without an end": b"--b\r\nX: " + b';a="' * MB,
    "parameters": part(field(b"a", b';a="' * 2000)),
    "parameters that escape": part(field(b"a", b';a="\\' * 1600)),
    "empty parts": b"--b\r\n" + b"\r\n--b\r\n" * (MB // 2),
    "a long text": part(field(b"a"), "ö".encode() * (2 * MB)),
    "a long text with an end that is none": part(field(b"a"), "ö".encode() * (2 * MB) + b"\xff"),
    "a file": part(field(b"a", b"; filename=b"), b"\x00" * (4 * MB)),
}


@pytest.mark.parametrize("name", COSTLY)
@pytest.mark.usefixtures("frozen_heap")
def test_forms_are_parsed_in_linear_time(name: str) -> None:
    """A step of Python for each byte takes 0.4 s for these; what is quadratic, minutes."""
    began = time.thread_time()
    try:
        parse(TYPE, COSTLY[name])
    except InvalidRequest as refused:
        assert len(refused.message) < 300
    assert time.thread_time() - began < 0.2


@pytest.mark.usefixtures("frozen_heap")
def test_content_types_are_parsed_in_linear_time() -> None:
    began = time.thread_time()
    for mess in (";", '";', ';a="', ';a="\\"', "; " * 3 + '"'):
        refusal(BODY, "multipart/form-data" + mess * (64 * 1024 // len(mess)) + "; boundary=b")
    assert time.thread_time() - began < 0.1
