"""Decoding of files in child processes: slots, limits of time and memory, and errors."""

import asyncio
import os
import signal
from collections.abc import Mapping

from gateway.errors import RETRY_AFTER_SECONDS, Overloaded
from gateway.fair_sharing import FairSemaphore
from gateway.media.budget import Budget
from gateway.media.fork_server import ExitInfo, ForkServer, ForkServerUnavailable, Job, ResponseTooLarge
from gateway.media.invalid_media import InvalidMedia

_WALL_TIME_FACTOR = 2
"""Limit of wall time, as a multiple of the limit of CPU time, because files share the cores."""


class DecoderPool:
    """Decodes up to `places` files at a time, shared fairly among callers."""

    def __init__(self, server: ForkServer, *, what: str, places: int, timeout: float, memory: int) -> None:
        """Errors call a file `what`. `timeout` is in seconds of CPU time, `memory` in bytes of address space."""
        self._fork_server = server
        self._label = what
        self._places = FairSemaphore(places)
        self._timeout = timeout
        self._memory = memory
        self._wall_timeout = _WALL_TIME_FACTOR * timeout

    async def decode(
        self, task: Mapping[str, object], data: bytes, *, allowance: Budget, largest: int
    ) -> tuple[dict[str, object], bytes]:
        """Return the result of `task` for `data` (`gateway.media.decoders`): facts, and at most `largest` bytes.

        Raises `InvalidMedia` for a fault of the file, and `Overloaded` if there is no slot for this caller in time, or
        the machine is too busy.
        """
        caller = allowance.caller
        with allowance.waiting_for_slot():
            try:
                await self._places.acquire(caller, seconds=self._wall_timeout)
            except TimeoutError:
                raise Overloaded(
                    f"Too many other {self._label}s are being read now.", retry_after=RETRY_AFTER_SECONDS
                ) from None
        try:
            job = await self._fork_server.begin(task, size=len(data), memory=self._memory, seconds=self._timeout)
        except ForkServerUnavailable:
            self._places.release(caller)
            raise Overloaded(f"No {self._label} can be read now.", retry_after=RETRY_AFTER_SECONDS) from None
        except BaseException:
            self._places.release(caller)
            raise
        # The slot is released when the process has ended, not when the caller stops waiting.
        job.exited.add_done_callback(lambda _: self._places.release(caller))
        try:
            async with asyncio.timeout(self._wall_timeout):
                response = await job.send_file(data, largest=largest)
                if response is None:
                    raise await self._failure(job, late=False)
        except ResponseTooLarge:
            raise InvalidMedia(f"there is more in the {self._label} than this service takes") from None
        except TimeoutError:
            self._fork_server.end(job)
            raise await self._failure(job, late=True) from None
        finally:
            self._fork_server.end(job)
        head, body = response
        if head.get("refusal") is not None:
            raise InvalidMedia(str(head["refusal"])[:1000])
        return head, body

    async def _failure(self, job: Job, *, late: bool) -> InvalidMedia | Overloaded:
        """Return the error for a process that ended without a response, or was killed because it is `late`."""
        await asyncio.wait([job.exited])
        if job.exited.cancelled():
            return Overloaded(f"The {self._label} could not be read just now.", retry_after=RETRY_AFTER_SECONDS)
        ended: ExitInfo = job.exited.result()
        signalled = os.WTERMSIG(ended.status) if os.WIFSIGNALED(ended.status) else 0
        if signalled in (signal.SIGPROF, signal.SIGXCPU) or ended.seconds >= self._timeout:
            return InvalidMedia(f"the {self._label} could not be read within {self._timeout:g} seconds")
        if late:  # and did not get the CPU time that it may use
            return Overloaded(
                f"This service is too busy to read the {self._label} in time.", retry_after=RETRY_AFTER_SECONDS
            )
        megabytes = self._memory // 2**20
        return InvalidMedia(f"the {self._label} is broken, or needs more than {megabytes} MiB of memory to be read")
