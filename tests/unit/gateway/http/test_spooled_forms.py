"""Forms with large files, read piece by piece: the same fields and the same errors as of whole forms."""

import errno
import itertools
import os
from pathlib import Path

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import InvalidRequest, Overloaded, RequestTooLarge, StorageFull
from gateway.fair_sharing import MemoryPool, MemoryReservation
from gateway.http import forms
from gateway.http.forms import Upload
from gateway.http.spooled_forms import FormReader, SpooledUpload
from gateway.media.spool import SpoolFile

TYPE = "multipart/form-data; boundary=b"
FILE = (
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n%s\r\n'
    b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n--b--\r\n'
)


def new_spool(folder: Path = Path("/nonexistent"), size: int = 1 << 30) -> SpoolFile:
    return SpoolFile(folder, MemoryReservation(MemoryPool(size), "caller", "too many"))


async def content(file: SpoolFile) -> bytes:
    return b"".join([chunk async for chunk in file.chunks()])


async def read(pieces: list[bytes], make: object = new_spool) -> dict[str, object]:
    """Return the form, with the content of files in memory."""
    reader = FormReader(TYPE, make)  # type: ignore[arg-type]
    for piece in pieces:
        await reader.feed(piece)
    form = await reader.finish()

    async def whole(item: object) -> object:
        return Upload(await content(item.file), item.name) if isinstance(item, SpooledUpload) else item

    return {
        name: [await whole(item) for item in value] if isinstance(value, list) else await whole(value)
        for name, value in form.items()
    }


def cut(body: bytes, places: list[int]) -> list[bytes]:
    at = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(at)]


HEADERS = st.sampled_from(
    [
        b'Content-Disposition: form-data; name="x"',
        b'Content-Disposition: form-data; name="x[]"',
        b'Content-Disposition: form-data; name="f"; filename="a.wav"\r\nContent-Type: audio/wav',
        b'Content-Disposition: form-data; name="f"; filename=""',
        b'Content-Disposition: form-data; name="_charset_"',
        b"Content-Disposition: form-data",
        b"nonsense",
        b"",
    ]
)
CONTENTS = st.one_of(
    st.sampled_from([b"", b"--b", b"\r\n", b"\r\n--b", b"\r\n--bx\r\n", b"utf-8"]), st.binary(max_size=40)
)
ENDS = st.sampled_from([b"--b--\r\n", b"--b--", b"--b \t--", b"--b", b""])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(HEADERS, CONTENTS), max_size=4), ENDS, st.lists(st.integers(0, 400), max_size=8))
async def test_pieces_give_the_same_form_as_the_whole(
    parts: list[tuple[bytes, bytes]], end: bytes, places: list[int]
) -> None:
    body = b"".join(b"--b\r\n" + headers + b"\r\n\r\n" + data + b"\r\n" for headers, data in parts) + end
    try:
        expected: object = forms.parse(TYPE, body)
    except InvalidRequest:
        expected = InvalidRequest
    try:
        found: object = await read(cut(body, places))
    except InvalidRequest:
        found = InvalidRequest
    assert found == expected


async def test_a_large_file_goes_to_disk_and_leaves_nothing_there(tmp_path: Path) -> None:
    data = bytes(range(256)) * 20_000
    body = FILE % data
    spools: list[SpoolFile] = []

    def make() -> SpoolFile:
        spools.append(new_spool(tmp_path / "uploads"))
        return spools[-1]

    form = await read(cut(body, list(range(0, len(body), 65_536))), make)
    assert form == {"file": Upload(data, "a.wav"), "model": "whisper"}
    (spool,) = spools
    assert spool.size == len(data) and spool._on_disk
    assert list((tmp_path / "uploads").iterdir()) == []
    reader = spool.open()
    spool.close()
    spool.close()
    assert os.pread(reader, len(data) + 1, 0) == data
    os.close(reader)


async def test_a_folder_that_cannot_be_written_is_a_failure_that_may_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    spool = new_spool(tmp_path / "file" / "uploads")
    with structlog.testing.capture_logs(), pytest.raises(Overloaded) as failure:
        await spool.write(bytes(2_000_000))
    assert failure.value.retry_after
    spool.close()
    full = new_spool(tmp_path)
    await full.write(bytes(100))

    def refuse(descriptor: int, data: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(StorageFull):
        await full.write(bytes(2_000_000))
    full.close()


async def test_limits_of_a_form() -> None:
    with pytest.raises(InvalidRequest, match="ends before"):
        await read([(FILE % b"x")[:-5]])
    field = b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\n'
    with pytest.raises(RequestTooLarge, match="fields of the form"):
        await read([field, *[b"x" * 65_536] * 20])
    with pytest.raises(InvalidRequest, match="64 fields"):
        await read([(field + b"x\r\n") * 65 + b"--b--"])
    with pytest.raises(InvalidRequest, match="do not end within"):
        await read([b"--b\r\n" + b"a: b\r\n" * 2000])
    with pytest.raises(InvalidRequest, match="begin with its boundary"):
        await read([b"x" * 1000])
    with pytest.raises(Overloaded, match="too many"):
        await read([FILE % bytes(10_000)], lambda: new_spool(size=10_000))
