"""Forms of any cut: how they are read does not hang on how they arrive."""

from collections.abc import AsyncGenerator
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from gateway.dialects.forms import Form, Upload, read

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
