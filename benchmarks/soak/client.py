"""The HTTP client of the soak: it reads at full speed or slowly, to the end or until it disconnects."""

import asyncio
import json
import random
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from benchmarks.soak.responses import InvalidResponse
from benchmarks.soak.workloads import Workload

TASK_SECONDS = 120.0
"""Seconds within which a task must complete."""
_POLL_SECONDS = 0.25
"""Seconds between two requests for the state of a task."""


@dataclass(slots=True)
class Response:
    """A response, possibly partial. `status` is 0 if the client disconnected before the headers arrived.

    `seconds` is the time from the request to the end of the response.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    disconnected: bool = False
    seconds: float = 0.0

    def refusal_error(self) -> str:
        """Return what is wrong with this refusal; "" if nothing.

        It needs JSON with an error message; 429 and 503 also need Retry-After.
        """
        try:
            error = json.loads(self.data)["error"]
            if not error["message"].strip() or "Traceback" in error["message"]:
                return f"{self.status} without a sentence: {self.data[:200]!r}"
        except (ValueError, KeyError, TypeError):
            return f"{self.status} without an error: {self.data[:200]!r}"
        if self.status in (429, 503) and int(self.headers.get("retry-after", 0)) < 1:
            return f"{self.status} without Retry-After"
        return ""


@dataclass(frozen=True, slots=True)
class SoakClient:
    """Sends requests to the gateway at `url`."""

    session: aiohttp.ClientSession
    url: str

    async def request(
        self,
        path: str,
        body: bytes,
        key: str,
        *,
        content_type: str = "application/json",
        method: str = "POST",
        pause: float = 0.0,
        patience: float | None = None,
    ) -> Response:
        """Send a request. Pause for `pause` seconds after each piece, and disconnect after `patience` seconds."""
        answer = Response()
        headers = {"Authorization": f"Bearer {key}", "Content-Type": content_type}
        data = None if method == "GET" else body
        began = time.perf_counter()
        try:
            async with (
                asyncio.timeout(patience),
                self.session.request(method, self.url + path, data=data, headers=headers) as response,
            ):
                answer.status = response.status
                answer.headers = {name.lower(): value for name, value in response.headers.items()}
                async for piece in response.content.iter_any():
                    answer.data += piece
                    if pause:
                        await asyncio.sleep(pause)
        except TimeoutError:
            if patience is None:
                raise
            answer.disconnected = True
        answer.seconds = time.perf_counter() - began
        return answer

    async def run_task(self, workload: Workload, key: str, patience: float | None = None) -> Response:
        """Create a task, poll until it completes, and fetch its image. Cancel it after `patience` seconds.

        Raises `InvalidResponse` if the task fails or takes longer than TASK_SECONDS.
        """
        began = time.perf_counter()
        created = await self.request(workload.path, workload.body, key)
        if created.status != 200:
            return created
        path = f"/tritonic/v1/images/{json.loads(created.data)['id']}"
        end = began + (TASK_SECONDS if patience is None else min(patience, TASK_SECONDS))
        while True:
            task = json.loads((await self.request(f"{path}?detail=true", b"", key, method="GET")).data)
            if task["status"] == "completed":
                break
            if task["status"] not in ("queued", "in_progress"):
                raise InvalidResponse(f"the status of the task is {task['status']}: {task['detail']['error']}")
            if time.perf_counter() > end:
                cancelled = await self.request(path, b"", key, method="DELETE")
                if patience is None:
                    raise InvalidResponse(f"the task is not completed after {TASK_SECONDS:.0f} s: {task}")
                cancelled.disconnected = True
                return cancelled
            await asyncio.sleep(_POLL_SECONDS)
        url = urlsplit(task["detail"]["data"][0]["url"])
        image = await self.request(f"{url.path}?{url.query}", b"", key, method="GET")
        image.seconds = time.perf_counter() - began
        return image

    async def send_partial(self, workload: Workload, key: str, rng: random.Random) -> None:
        """Send a random part of a request, and abort the connection."""
        host, port = urlsplit(self.url).netloc.split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        head = (
            f"POST {workload.path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Type: {workload.content_type}\r\nContent-Length: {len(workload.body)}\r\n\r\n"
        )
        request = head.encode() + workload.body
        writer.write(request[: rng.randrange(1, len(request))])
        await asyncio.sleep(rng.random())
        writer.transport.abort()


async def send(client: SoakClient, workload: Workload, key: str, **options: Any) -> Response:
    """Send a workload, as a task if it is one. `options` are those of `SoakClient.request`."""
    if workload.is_task:
        return await client.run_task(workload, key)
    return await client.request(workload.path, workload.body, key, content_type=workload.content_type, **options)
