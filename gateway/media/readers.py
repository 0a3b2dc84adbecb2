"""Files that are looked at and read: in which place, within which limits, and what is said where that fails."""

import asyncio
import os
import signal
from collections.abc import Mapping

from gateway.errors import RETRY_AFTER, Overloaded
from gateway.media.allowance import Allowance
from gateway.media.fork_server import Broken, Ended, ForkServer, Job, TooLong
from gateway.media.unusable import Unusable
from gateway.places import Places

_CLOCK = 2
"""By the clock a file may take so many times as long as of a core: others are read beside it."""


class Readers:
    """Up to `places` processes at a time, shared fairly among callers."""

    def __init__(self, server: ForkServer, *, what: str, places: int, timeout: float, memory: int) -> None:
        """`what` is what errors call a file. `timeout` is in seconds of a core, `memory` in bytes of address space."""
        self._server = server
        self._what = what
        self._places = Places(places)
        self._timeout = timeout
        self._memory = memory
        self._clock = _CLOCK * timeout

    async def read(
        self, task: Mapping[str, object], data: bytes, *, allowance: Allowance, largest: int
    ) -> tuple[dict[str, object], bytes]:
        """Return what `gateway.media.reading` makes of `data`: what it says of it, and at most `largest` bytes.

        Raises `Unusable` for what is wrong with the file, and `Overloaded` where there is no place for this caller, or
        the machine is too busy: that is not the file's fault.
        """
        caller = allowance.caller
        with allowance.waiting():
            try:
                await self._places.take(caller, seconds=self._clock)
            except TimeoutError:
                raise Overloaded(f"Too many other {self._what}s are being read now.", retry_after=RETRY_AFTER) from None
        try:
            job = await self._server.begin(task, size=len(data), memory=self._memory, seconds=self._timeout)
        except Broken:
            self._places.release(caller)
            raise Overloaded(f"No {self._what} can be read now.", retry_after=RETRY_AFTER) from None
        except BaseException:
            self._places.release(caller)
            raise
        # The place is free when the process has ended, not when somebody no longer waits for it.
        job.ended.add_done_callback(lambda _: self._places.release(caller))
        try:
            async with asyncio.timeout(self._clock):
                answer = await job.ask(data, largest=largest)
                if answer is None:
                    raise await self._failure(job, late=False)
        except TooLong:
            raise Unusable(f"there is more in the {self._what} than this service takes") from None
        except TimeoutError:
            self._server.end(job)
            raise await self._failure(job, late=True) from None
        finally:
            self._server.end(job)
        head, body = answer
        if head.get("refusal") is not None:
            raise Unusable(str(head["refusal"])[:1000])
        return head, body

    async def _failure(self, job: Job, *, late: bool) -> Unusable | Overloaded:
        """Return what to raise about a process that ended without an answer, or is being ended as it is `late`."""
        await asyncio.wait([job.ended])
        if job.ended.cancelled():
            return Overloaded(f"The {self._what} could not be read just now.", retry_after=RETRY_AFTER)
        ended: Ended = job.ended.result()
        signalled = os.WTERMSIG(ended.status) if os.WIFSIGNALED(ended.status) else 0
        if signalled in (signal.SIGPROF, signal.SIGXCPU) or ended.seconds >= self._timeout:
            return Unusable(f"the {self._what} could not be read within {self._timeout:g} seconds")
        if late:  # and had not the core that it may have
            return Overloaded(f"This service is too busy to read the {self._what} in time.", retry_after=RETRY_AFTER)
        megabytes = self._memory // 2**20
        return Unusable(f"the {self._what} is broken, or needs more than {megabytes} MiB of memory to be read")
