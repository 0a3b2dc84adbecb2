"""Signed URLs: each opens its file only, until it expires."""

import time
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway.errors import FileNotFound, Forbidden
from gateway.files.file_store import FileStore
from gateway.files.object_stores import StoreError, check_settings
from gateway.settings import Settings

Make = Callable[..., FileStore]


def parts(url: str) -> tuple[str, str, str]:
    query = parse_qs(urlsplit(url).query)
    return urlsplit(url).path.removeprefix("/files/"), query["expires"][0], query["signature"][0]


async def test_a_signed_url_opens_its_file(make: Make) -> None:
    files = make(files_url_seconds=100)
    id = await files.put(b"x", "image/png")
    url = files.url(id, "https://api.example/")
    assert url.startswith(f"https://api.example/files/{id}?expires=")
    assert time.time() + 98 < files.verify(*parts(url)) <= time.time() + 100
    assert make().verify(*parts(url)), "another start has the same key"


async def test_a_changed_url_is_refused(make: Make) -> None:
    files = make()
    id, other = await files.put(b"x", "image/png"), await files.put(b"y", "image/png")
    _, expires, signature = parts(files.url(id, "https://api.example"))
    foreign = parts(make(files_key="somebody else's key").url(id, "https://api.example"))
    for invalid in (
        (other, expires, signature),
        (id, str(int(expires) + 1), signature),
        (id, expires, signature[:-1]),
        (id, expires, signature + "A"),
        (id, expires, ""),
        (id, "", signature),
        (id, "never", signature),
        (id, "\uff19" * 10, signature),
        (id, "9" * 5000, signature),
        (id, expires, "ü" * 43),
        ("no file at all", expires, signature),
        foreign,
    ):
        with pytest.raises(Forbidden):
            files.verify(*invalid)


async def test_a_signed_url_expires(make: Make) -> None:
    files = make()
    id = await files.put(b"x", "image/png")
    with pytest.raises(Forbidden, match="expired"):
        files.verify(*parts(files.url(id, "https://api.example", seconds=-1)))


async def test_a_valid_signature_of_a_missing_file_is_not_found(make: Make) -> None:
    files = make()
    with pytest.raises(FileNotFound):
        files.verify(*parts(files.url("../../etc/passwd", "https://api.example")))


async def test_paths_are_returned_where_the_setting_says_so(make: Make, tmp_path) -> None:
    files = make(files_style="path", files=str(tmp_path / "photos"))
    id = await files.put(b"x", "image/png")
    assert files.url(id, "https://api.example") == str(tmp_path / "photos" / id)
    assert (tmp_path / "photos" / id).read_bytes() == b"x"


@pytest.mark.parametrize(
    "invalid",
    [{"files": "s3://bucket", "files_style": "path"}, {"files": "nonsense://bucket"}, {"files": "s3://"}],
    ids=["paths into a bucket", "no such store", "no bucket"],
)
def test_an_invalid_store_setting_is_refused_at_startup(invalid: dict) -> None:
    with pytest.raises(StoreError, match="TRITONIC_FILES"):
        check_settings(Settings(**invalid))
