"""Images in an S3 bucket: stored, fetched, swept, and refused where the bucket is full."""

import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gateway.files.file_store import FileStore
from gateway.settings import Settings
from tests.fakes.s3 import FakeS3
from tests.fakes.triton import FakeTriton
from tests.wire.gateway_server import RunningGateway, run_gateway
from tests.wire.openai.image_requests import EDITS, GENERATIONS, encoded_image, open_image
from tests.wire.openai.text_requests import check_error

pytestmark = pytest.mark.asyncio(loop_scope="session")

URL = "s3://pictures/of/tritonic"
PREFIX = "of/tritonic/"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bucket() -> AsyncIterator[FakeS3]:
    with pytest.MonkeyPatch.context() as patched:
        running = await FakeS3().start()
        for name, value in running.environment().items():
            patched.setenv(name, value)
        yield running
        await running.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def gateway(triton: FakeTriton, bucket: FakeS3) -> AsyncIterator[RunningGateway]:
    async with run_gateway(triton.url, files=URL, tasks_patience=1) as running:
        yield running


async def test_an_image_is_stored_and_fetched(gateway: RunningGateway, bucket: FakeS3) -> None:
    body = {"model": "shapes", "prompt": "x", "seed": 3, "output_format": "webp"}
    answer = await gateway.http.post(GENERATIONS, json=body)
    assert answer.status_code == 200, answer.text
    ((key, stored),) = bucket.objects.items()
    assert key.startswith(PREFIX) and stored.content_type == "image/webp"
    url = answer.json()["data"][0]["url"]
    response = await gateway.http.get(url)
    assert (response.status_code, response.headers["content-type"], response.content) == (
        200,
        "image/webp",
        stored.data,
    )
    assert open_image(response.content).size == (128, 128)
    part = await gateway.http.get(url, headers={"Range": "bytes=4-11"})
    assert (part.status_code, part.content) == (206, stored.data[4:12])
    assert part.headers["content-range"] == f"bytes 4-11/{len(stored.data)}"
    head = await gateway.http.head(url)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(stored.data)))
    again = await gateway.http.get(url, headers={"If-None-Match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_objects_are_fetched_from_the_bucket_only_when_they_are_sent(
    gateway: RunningGateway, bucket: FakeS3, tmp_path: Path
) -> None:
    answer = await gateway.http.post(GENERATIONS, json={"model": "shapes", "prompt": "x"})
    url = answer.json()["data"][0]["url"]
    whole = await gateway.http.get(url)
    size, etag = len(whole.content), whole.headers["etag"]
    for method, headers, status, methods in (
        ("GET", {}, 200, ["GET"]),
        ("HEAD", {}, 200, ["HEAD"]),
        ("HEAD", {"Range": "bytes=4-11"}, 206, ["HEAD"]),
        ("GET", {"If-None-Match": etag}, 304, ["HEAD"]),
        ("HEAD", {"If-None-Match": etag}, 304, ["HEAD"]),
        ("GET", {"If-None-Match": etag, "Range": "bytes=4-11"}, 304, ["HEAD"]),
        ("GET", {"If-None-Match": '"another"'}, 200, ["HEAD", "GET"]),
        ("GET", {"Range": "bytes=4-11"}, 206, ["HEAD", "GET"]),
        ("GET", {"Range": "bytes=4-11", "If-Range": etag}, 206, ["HEAD", "GET"]),
        ("GET", {"Range": f"bytes={size}-"}, 416, ["HEAD"]),
    ):
        bucket.requested_methods.clear()
        response = await gateway.http.request(method, url, headers=headers)
        assert (response.status_code, bucket.requested_methods) == (status, methods), (method, headers)
        if status in (200, 206):
            part = whole.content[4:12] if status == 206 else whole.content
            assert response.headers["content-length"] == str(len(part))
            assert response.content == (part if method == "GET" else b"")


async def test_expired_files_are_deleted_and_other_objects_stay(bucket: FakeS3, tmp_path: Path) -> None:
    files = FileStore(Settings(state=tmp_path, files=URL, files_retention=3600))
    old, new = await files.put(b"old", "image/png"), await files.put(b"new", "image/png")
    notes = bucket.objects["notes.txt"] = bucket.objects[f"{PREFIX}notes.txt"] = bucket.objects[PREFIX + old]
    for key in (PREFIX + old, f"{PREFIX}notes.txt"):
        bucket.objects[key] = replace(notes, modified=notes.modified - timedelta(hours=2))
    gone, _ = await files.sweep()
    assert gone == 1 and PREFIX + old not in bucket.objects
    assert {PREFIX + new, f"{PREFIX}notes.txt", "notes.txt"} <= set(bucket.objects)
    assert await files.read(new) == b"new"


CHAT = {"messages": [{"role": "user", "content": "x"}]}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (GENERATIONS, {"prompt": "x"}),
        (EDITS, {"prompt": "x", "image": base64.b64encode(encoded_image()).decode()}),
        ("/v1/chat/completions", CHAT),
        ("/tritonic/v1/images/generations", {"prompt": "x", "response_format": "url"}),
        ("/tritonic/v1/chat/completions", CHAT),
    ],
)
async def test_a_failed_upload_leaves_no_object(
    gateway: RunningGateway, bucket: FakeS3, path: str, fields: dict[str, Any]
) -> None:
    before = set(bucket.objects)
    bucket.error_code, bucket.writes_before_error = "QuotaExceeded", 3
    try:
        answer = await gateway.http.post(path, json={"model": "shapes", "n": 5, **fields})
    finally:
        bucket.error_code = ""
    check_error(answer, 507, "server_error", "storage_full")
    assert set(bucket.objects) == before and bucket.writes_before_error == 0


async def test_a_failed_task_leaves_no_object(gateway: RunningGateway, bucket: FakeS3) -> None:
    before = set(bucket.objects)
    bucket.error_code, bucket.writes_before_error = "QuotaExceeded", 3
    try:
        body = {"model": "shapes", "prompt": "x", "n": 5, "async": True}
        task = (await gateway.http.post("/tritonic/v1/images/generations", json=body)).json()
        path = f"/tritonic/v1/images/{task['id']}?detail=true"
        answer = await gateway.until(path, lambda response: response.json()["status"] == "failed", seconds=30)
    finally:
        bucket.error_code = ""
    assert answer.json()["detail"]["error"]["code"] == "storage_full"
    assert set(bucket.objects) == before and bucket.writes_before_error == 0


async def test_a_full_bucket_is_reported(gateway: RunningGateway, bucket: FakeS3) -> None:
    bucket.error_code = "QuotaExceeded"
    try:
        answer = await gateway.http.post(GENERATIONS, json={"model": "shapes", "prompt": "x"})
    finally:
        bucket.error_code = ""
    check_error(answer, 507, "server_error", "storage_full")
