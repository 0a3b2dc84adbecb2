"""Forms of any cut: how they are read does not hang on how they arrive."""

from collections.abc import AsyncGenerator
from itertools import pairwise

import pytest
from gateway.dialects.forms import Form, Upload, read
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from gateway.errors import InvalidRequest

BODY = (
    b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\nein gr\xc3\xb6\xc3\x9ferer Kreis\r\n'
    b'--b\r\nContent-Disposition: form-data; name="image[]"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    b"\x89PNG\r\n\x1a\n--b\r\n\r\n"
    b'--b\r\nContent-Disposition: form-data; name="mask"; filename=""\r\n\r\n\r\n'
    b'--b\r\nContent-Disposition: form-data; name="n"\r\n\r\n1\r\n'
    b'--b\r\nContent-Disposition: form-data; name="n"\r\n\r\n2\r\n'
    b"--b--\r\n"
)


@given(st.lists(st.integers(0, len(BODY)), max_size=12))
async def test_pieces_do_not_matter(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(BODY)]

    async def pieces() -> AsyncGenerator[bytes]:
        for start, end in pairwise(edges):
            yield BODY[start:end]

    # A file that a browser's form leaves out has neither a name nor content.
    form = await read(Headers({"content-type": "multipart/form-data; boundary=b"}), pieces())
    assert isinstance(form, Form)
    assert form == {
        "prompt": "ein größerer Kreis",
        "image": [Upload(b"\x89PNG\r\n\x1a\n--b\r\n", "a.png")],
        "n": ["1", "2"],
    }


async def refusal(body: bytes, more: str = "") -> str:
    async def chunks() -> AsyncGenerator[bytes]:
        yield body

    with pytest.raises(InvalidRequest) as refused:
        await read(Headers({"content-type": "multipart/form-data; boundary=b" + more}), chunks())
    return refused.value.message


@given(st.integers(0, len(BODY) - 4))
async def test_a_form_that_is_cut_off_is_refused(end: int) -> None:
    """What was lost may be the picture that was to be edited."""
    assert "it ends before the boundary that closes it" in await refusal(BODY[:end])


@pytest.mark.parametrize("charset", ["undefined", "punycode", "unicode_escape"])
async def test_charsets_that_cannot_be_read(charset: str) -> None:
    text = b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n\\ud800 a-b c\r\n--b--\r\n'
    assert "not a valid form" in await refusal(text, f"; charset={charset}")
