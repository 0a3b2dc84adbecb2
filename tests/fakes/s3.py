"""An object store with the part of S3's REST API that files use: put, get, head, delete and list.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations_Amazon_Simple_Storage_Service.html. Signatures must
be present, and are not checked.
"""

import hashlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from aiohttp import web

KEY = "a-key-of-the-tests"
_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


@dataclass(frozen=True, slots=True)
class StoredObject:
    data: bytes
    content_type: str
    modified: datetime

    @property
    def etag(self) -> str:
        return f'"{hashlib.md5(self.data).hexdigest()}"'


@dataclass(slots=True)
class FakeS3:
    """`objects` are the stored objects by key. `requested_methods` are the methods of the requests for an object.

    Writes fail with `error_code`, if it is set, after the next `writes_before_error`.
    """

    name: str = "pictures"
    objects: dict[str, StoredObject] = field(default_factory=dict)
    requested_methods: list[str] = field(default_factory=list)
    error_code: str = ""
    writes_before_error: int = 0
    host: str = "127.0.0.1"
    """The address at which it listens."""
    port: int = 0
    _runner: web.AppRunner | None = None

    def environment(self) -> dict[str, str]:
        """Return the environment variables of a client: endpoint and credentials."""
        return {
            "AWS_ENDPOINT_URL": f"http://{self.host}:{self.port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "eu-central-1",
        }

    async def start(self) -> "FakeS3":
        application = web.Application(client_max_size=64 * 1024 * 1024)
        application.router.add_route("*", f"/{self.name}", self._bucket)
        application.router.add_route("*", f"/{self.name}/{{key:.*}}", self._object)
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _object(self, request: web.Request) -> web.Response:
        key = request.match_info["key"]
        if not key:
            return await self._bucket(request)
        _must_be_signed(request)
        self.requested_methods.append(request.method)
        if request.method == "PUT":
            return self._put(key, await request.read(), request.content_type)
        if request.method == "DELETE":
            self.objects.pop(key, None)
            return web.Response(status=204)
        found = self.objects.get(key)
        if found is None:
            return _failure(404, "NoSuchKey")
        headers = {
            "ETag": found.etag,
            "Last-Modified": format_datetime(found.modified, usegmt=True),
            "Content-Type": found.content_type,
        }
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        if part is None:
            return web.Response(body=found.data, headers=headers)
        start, end = int(part[1]), int(part[2] or len(found.data) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(found.data)}"
        return web.Response(status=206, body=found.data[start : end + 1], headers=headers)

    def _put(self, key: str, data: bytes, content_type: str) -> web.Response:
        if self.error_code and self.writes_before_error:
            self.writes_before_error -= 1
        elif self.error_code:
            return _failure(400, self.error_code)
        stored = self.objects[key] = StoredObject(data, content_type, datetime.now(UTC))
        return web.Response(headers={"ETag": stored.etag})

    async def _bucket(self, request: web.Request) -> web.Response:
        _must_be_signed(request)
        if request.method == "POST" and "delete" in request.query:
            wanted = [key.text for key in ElementTree.fromstring(await request.read()).iter() if _tag(key) == "Key"]
            for key in wanted:
                self.objects.pop(key or "", None)
            return _xml("DeleteResult", "".join(f"<Deleted><Key>{escape(key or '')}</Key></Deleted>" for key in wanted))
        prefix = request.query.get("prefix", "")
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>{stored.modified:%Y-%m-%dT%H:%M:%S.000Z}</LastModified>"
            f"<ETag>{escape(stored.etag)}</ETag><Size>{len(stored.data)}</Size></Contents>"
            for key, stored in sorted(self.objects.items())
            if key.startswith(prefix)
        )
        return _xml("ListBucketResult", f"<Name>{self.name}</Name><IsTruncated>false</IsTruncated>{rows}")


def _must_be_signed(request: web.Request) -> None:
    if KEY not in request.headers.get("Authorization", ""):
        raise web.HTTPForbidden


def _tag(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]


def _xml(name: str, inside: str, status: int = 200) -> web.Response:
    text = f'<?xml version="1.0" encoding="UTF-8"?><{name} xmlns="{_NAMESPACE}">{inside}</{name}>'
    return web.Response(status=status, text=text, content_type="application/xml")


def _failure(status: int, code: str) -> web.Response:
    return _xml("Error", f"<Code>{code}</Code><Message>no</Message>", status)
