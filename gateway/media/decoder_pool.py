"""Decoding of files in child processes: slots, limits of time and memory, and errors."""

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import orjson

from gateway.errors import RETRY_AFTER_SECONDS, Overloaded
from gateway.fair_sharing import FairSemaphore
from gateway.media.budget import Budget
from gateway.media.decoders.child_process import JSON
from gateway.media.fork_server import ExitInfo, ForkServer, ForkServerUnavailable, Job, ResponseTooLarge
from gateway.media.invalid_media import InvalidMedia

_WALL_TIME_FACTOR = 2
"""Limit of wall time as a multiple of the limit of CPU time. Concurrent decoders share the cores."""


class DecoderPool:
    """Decodes up to `num_slots` files at a time, shared fairly among callers."""

    def __init__(
        self,
        server: ForkServer,
        *,
        label: str,
        num_slots: int,
        timeout: float,
        memory: int,
        slot_timeout: float | None = None,
    ) -> None:
        """`label` is the word for a file in error messages: "image", "video" or "file".

        `timeout` limits the CPU time of one file in seconds, `memory` its address space in bytes. `slot_timeout` is the
        longest wait for a slot in seconds; None: as long as the limit of wall time.
        """
        self._slot_timeout = slot_timeout
        self._fork_server = server
        self._label = label
        self._slots = FairSemaphore(num_slots)
        self._timeout = timeout
        self._memory = memory
        self._wall_timeout = _WALL_TIME_FACTOR * timeout

    async def decode_in_pieces(
        self, task: Mapping[str, object], descriptor: int, *, caller: str
    ) -> AsyncGenerator[dict[str, Any] | bytes]:
        """Yield the pieces of the response to the tasks `recording` and `clip`: JSON objects, and bytes between them.

        Takes over `descriptor`, the file. The child decodes no faster than its pieces are read. Raises as `decode`
        does.
        """
        try:
            job = await self._begin(task, caller, size=0, file=descriptor)
        finally:
            os.close(descriptor)
        try:
            while True:
                async with asyncio.timeout(self._wall_timeout):
                    piece = await job.receive_piece()
                if piece is None:
                    raise await self._failure(job, is_late=False)
                kind, content = piece
                if kind != JSON:
                    yield content
                    continue
                head: dict[str, Any] = orjson.loads(content)
                if "refusal" not in head:
                    yield head
                elif head["refusal"] is not None:
                    raise InvalidMedia(str(head["refusal"])[:1000])
                else:
                    del head["refusal"]
                    if head:
                        yield head
                    return
        except (ResponseTooLarge, ValueError):
            raise InvalidMedia(f"the {self._label} is damaged") from None
        except TimeoutError:
            self._fork_server.end(job)
            raise await self._failure(job, is_late=True) from None
        finally:
            self._fork_server.end(job)

    async def decode_file(
        self, task: Mapping[str, object], descriptor: int, *, caller: str, max_body_bytes: int
    ) -> tuple[dict[str, object], bytes]:
        """Return the response to `task` for the file of `descriptor`, which is taken over.

        Returns and raises as `decode` does.
        """
        try:
            job = await self._begin(task, caller, size=0, file=descriptor)
        finally:
            os.close(descriptor)
        return await self._finish(job, b"", max_body_bytes)

    async def decode(
        self, task: Mapping[str, object], data: bytes, *, budget: Budget, max_body_bytes: int
    ) -> tuple[dict[str, object], bytes]:
        """Return the head and the body of the response to `task` for `data` (`gateway.media.decoders.child_process`).

        The body has at most `max_body_bytes` bytes. Raises `InvalidMedia` for a fault of the file, and `Overloaded` if
        no slot becomes free for this caller in time, or the machine is too busy.
        """
        job = await self._begin(task, budget.caller, size=len(data), waiting=budget.waiting_for_slot())
        return await self._finish(job, data, max_body_bytes)

    async def _finish(self, job: Job, data: bytes, max_body_bytes: int) -> tuple[dict[str, object], bytes]:
        """Send `data`, and return the head and the body of the response."""
        try:
            async with asyncio.timeout(self._wall_timeout):
                response = await job.send_file(data, max_body_bytes=max_body_bytes)
                if response is None:
                    raise await self._failure(job, is_late=False)
        except ResponseTooLarge:
            raise InvalidMedia(f"the decoded {self._label} exceeds the size limit") from None
        except TimeoutError:
            self._fork_server.end(job)
            raise await self._failure(job, is_late=True) from None
        finally:
            self._fork_server.end(job)
        head, body = response
        if head.get("refusal") is not None:
            raise InvalidMedia(str(head["refusal"])[:1000])
        return head, body

    async def _begin(
        self,
        task: Mapping[str, object],
        caller: str,
        *,
        size: int,
        file: int | None = None,
        waiting: AbstractContextManager[None] | None = None,
    ) -> Job:
        """Wait for a slot, inside `waiting`, and start a process. Raises `Overloaded`."""
        with waiting or nullcontext():
            try:
                await self._slots.acquire(caller, seconds=self._slot_timeout or self._wall_timeout)
            except TimeoutError:
                raise Overloaded(
                    f"Too many other {self._label}s are being decoded now; try again later.",
                    retry_after=RETRY_AFTER_SECONDS,
                ) from None
        try:
            job = await self._fork_server.begin(task, size=size, memory=self._memory, seconds=self._timeout, file=file)
        except ForkServerUnavailable:
            self._slots.release(caller)
            raise Overloaded(f"The {self._label} cannot be decoded now.", retry_after=RETRY_AFTER_SECONDS) from None
        except BaseException:
            self._slots.release(caller)
            raise
        # The slot is released when the process has ended, not when the caller stops waiting.
        job.exited.add_done_callback(lambda _: self._slots.release(caller))
        return job

    async def _failure(self, job: Job, *, is_late: bool) -> InvalidMedia | Overloaded:
        """Return the error for a process that ended without a response, or was killed after the wall-time limit."""
        await asyncio.wait([job.exited])
        if job.exited.cancelled():
            return Overloaded(f"The {self._label} could not be decoded now.", retry_after=RETRY_AFTER_SECONDS)
        exit_info: ExitInfo = job.exited.result()
        signal_number = os.WTERMSIG(exit_info.status) if os.WIFSIGNALED(exit_info.status) else 0
        if signal_number in (signal.SIGPROF, signal.SIGXCPU) or exit_info.seconds >= self._timeout:
            return InvalidMedia(f"the {self._label} could not be decoded within {self._timeout:g} seconds")
        if is_late:  # the process did not get the CPU time that it may use
            return Overloaded(
                f"The service is too busy to decode the {self._label} in time.", retry_after=RETRY_AFTER_SECONDS
            )
        megabytes = self._memory // 2**20
        return InvalidMedia(f"the {self._label} is damaged, or needs more than {megabytes} MiB of memory")
