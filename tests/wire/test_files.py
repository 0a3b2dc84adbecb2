"""GET /files/{id}, for clients and browsers."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.files.file_store import FileStore
from gateway.settings import Settings
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.text_requests import check_error

pytestmark = pytest.mark.asyncio(loop_scope="session")

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8000


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(triton: FakeTriton, state: Path) -> AsyncIterator[RunningGateway]:
    async with run_gateway(triton.url, state=state, api_keys=["sk-one"]) as running:
        yield running


@pytest.fixture
def files(state: Path) -> FileStore:
    """A store with the same files and the same signing key as the gateway's."""
    return FileStore(Settings(state=state))


async def signed_url(files: FileStore, content_type: str = "image/png", **options: Any) -> str:
    return files.url(await files.put(PICTURE, content_type), "", **options)


@pytest.mark.parametrize("content_type", ["image/png", "image/jpeg", "image/webp"])
async def test_a_signed_url_returns_the_file(gateway: RunningGateway, files: FileStore, content_type: str) -> None:
    url = await signed_url(files, content_type)
    response = await gateway.http.get(url)
    assert response.status_code == 200 and response.content == PICTURE
    headers = response.headers
    assert headers["content-type"] == content_type and headers["content-length"] == str(len(PICTURE))
    assert headers["x-content-type-options"] == "nosniff" and headers["accept-ranges"] == "bytes"
    private, age = headers["cache-control"].split(", max-age=")
    assert private == "private" and 86390 < int(age) <= 86400
    assert headers["content-disposition"].startswith("inline") and "sandbox" in headers["content-security-policy"]
    head = await gateway.http.head(url)
    assert head.status_code == 200 and head.content == b""
    assert {name: head.headers[name] for name in ("content-type", "content-length", "etag")} == {
        name: headers[name] for name in ("content-type", "content-length", "etag")
    }
    for known in (headers["etag"], f'"another", W/{headers["etag"]}', "*"):
        again = await gateway.http.get(url, headers={"If-None-Match": known})
        assert again.status_code == 304 and again.content == b""


SIZE = len(PICTURE)


@pytest.mark.parametrize(
    ("byte_range", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=1000-", 1000, SIZE),
        ("bytes=-7", SIZE - 7, SIZE),
        ("bytes=5-999999999999", 5, SIZE),
        (f"bytes=-{SIZE + 5}", 0, SIZE),
    ],
)
async def test_a_byte_range_is_returned(
    gateway: RunningGateway, files: FileStore, byte_range: str, start: int, end: int
) -> None:
    url = await signed_url(files)
    response = await gateway.http.get(url, headers={"Range": byte_range})
    assert response.status_code == 206 and response.content == PICTURE[start:end]
    assert response.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
    head = await gateway.http.head(url, headers={"Range": byte_range})
    assert head.status_code == 206 and head.headers["content-length"] == str(end - start)


async def test_if_range_needs_the_same_file(gateway: RunningGateway, files: FileStore) -> None:
    url = await signed_url(files)
    headers = (await gateway.http.head(url)).headers
    for known in (headers["etag"], headers["last-modified"]):
        response = await gateway.http.get(url, headers={"Range": "bytes=100-199", "If-Range": known})
        assert response.status_code == 206 and response.content == PICTURE[100:200]
    for known in ('"another"', f"W/{headers['etag']}", "Sat, 01 Jan 2000 00:00:00 GMT"):
        response = await gateway.http.get(url, headers={"Range": "bytes=100-199", "If-Range": known})
        assert response.status_code == 200 and response.content == PICTURE


@pytest.mark.parametrize("byte_range", [f"bytes={SIZE}-", "bytes=-0", "bytes=9-3"])
async def test_an_unsatisfiable_range_is_refused(gateway: RunningGateway, files: FileStore, byte_range: str) -> None:
    response = await gateway.http.get(await signed_url(files), headers={"Range": byte_range})
    assert response.status_code == 416 and response.headers["content-range"] == f"bytes */{SIZE}"


@pytest.mark.parametrize("byte_range", ["bytes=0-1,5-6", "pages=1-2", "bytes=", "bytes=a-b", "bytes=-", "9" * 5000])
async def test_an_invalid_range_returns_the_whole_file(
    gateway: RunningGateway, files: FileStore, byte_range: str
) -> None:
    response = await gateway.http.get(await signed_url(files), headers={"Range": byte_range})
    assert response.status_code == 200 and response.content == PICTURE


async def test_a_changed_or_expired_url_is_refused(gateway: RunningGateway, files: FileStore, tmp_path: Path) -> None:
    url = httpx.URL(await signed_url(files))
    other = (await signed_url(files)).partition("?")[0]
    foreign = FileStore(Settings(state=tmp_path)).url(url.path.removeprefix("/files/"), "")
    for wrong_url in (
        url.path,
        f"{other}?{url.query.decode()}",
        f"{url}x",
        str(url).replace("expires=1", "expires=2"),
        f"{url.path}?expires=&signature=",
        foreign,
    ):
        assert "does not match" in check_error(
            await gateway.http.get(wrong_url), 403, "permission_error", "permission_denied"
        )
    expired = await signed_url(files, seconds=-1)
    assert "expired" in check_error(await gateway.http.get(expired), 403, "permission_error", "permission_denied")
    # The key of the API opens nothing either.
    response = await gateway.http.get(url.path, headers={"Authorization": "Bearer sk-one"})
    assert response.status_code == 403


async def test_a_deleted_file_is_gone(gateway: RunningGateway, files: FileStore) -> None:
    url = await signed_url(files)
    await files.delete(httpx.URL(url).path.removeprefix("/files/"))
    check_error(await gateway.http.get(url), 404, "invalid_request_error", "file_not_found")
    assert (await gateway.http.head(url)).status_code == 404


@pytest.mark.parametrize("path", ["/files/", "/files", "/files/a/b", "/files/..%2f..%2fetc%2fpasswd"])
async def test_other_paths_are_not_found(gateway: RunningGateway, path: str) -> None:
    assert (await gateway.http.get(path)).status_code in (403, 404)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_files_are_read_only(gateway: RunningGateway, files: FileStore, method: str) -> None:
    check_error(
        await gateway.http.request(method, await signed_url(files)), 405, "invalid_request_error", "method_not_allowed"
    )


async def test_many_concurrent_downloads(gateway: RunningGateway, files: FileStore) -> None:
    import asyncio

    url = await signed_url(files)
    began = time.perf_counter()
    responses = await asyncio.gather(*(gateway.http.get(url) for _ in range(50)))
    assert all(response.content == PICTURE for response in responses)
    assert time.perf_counter() - began < 30
