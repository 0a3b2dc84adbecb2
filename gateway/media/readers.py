"""Processes that read documents and sounds, one for each.

Parsers of foreign files can loop for ever, eat all memory, or worse. So each file is read in a process of its own, with
limits, a lower priority and no secrets in its environment, which ends when the file is read or its time is over.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import orjson

import gateway
from gateway.errors import RETRY_AFTER, Overloaded
from gateway.media.unusable import Unusable

_ENVIRONMENT = {
    "PATH": os.defpath,
    "LANG": "C.UTF-8",
    "PYTHONPATH": str(Path(gateway.__file__).parents[1]),
    "PYTHONSAFEPATH": "1",
    # Where an interpreter may have been told to find its own library.
    **({"LD_LIBRARY_PATH": os.environ["LD_LIBRARY_PATH"]} if "LD_LIBRARY_PATH" in os.environ else {}),
}
_PIECE = 1 << 20


class Readers:
    """Up to `places` processes at a time; who finds none free waits, as long as one may take."""

    def __init__(self, *, places: int, timeout: float, memory: int) -> None:
        """`timeout` is in seconds, `memory` in bytes of address space, both for each process."""
        self._places = asyncio.Semaphore(places)
        self._timeout = timeout
        self._memory = memory

    async def read(self, task: Mapping[str, object], data: bytes, *, largest: int) -> bytes:
        """Return what `gateway.media.reading` makes of `data`, at most `largest` bytes.

        Raises `Unusable`, and `Overloaded` when no place becomes free.
        """
        try:
            async with asyncio.timeout(self._timeout):
                await self._places.acquire()
        except TimeoutError:
            raise Overloaded("Too many files are being read now.", retry_after=RETRY_AFTER) from None
        try:
            return await self._run(task, data, largest)
        finally:
            self._places.release()

    async def _run(self, task: Mapping[str, object], data: bytes, largest: int) -> bytes:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "gateway.media.reading",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=_ENVIRONMENT,
            limit=_PIECE,
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            async with asyncio.timeout(self._timeout):
                with suppress(OSError):  # it ended early; what it wrote says why
                    limits = {"memory": self._memory, "seconds": self._timeout}
                    process.stdin.write(orjson.dumps({**task, **limits}) + b"\n")
                    process.stdin.write(data)
                    await process.stdin.drain()
                    process.stdin.close()
                written = bytearray()
                while piece := await process.stdout.read(_PIECE):
                    written += piece
                    if len(written) > largest + _PIECE:
                        raise Unusable("there is more in the file than this service takes")
                status = await process.wait()
        except TimeoutError:
            raise Unusable(f"the file could not be read within {self._timeout:g} seconds") from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await asyncio.shield(process.wait())
        head, line, body = bytes(written).partition(b"\n")
        if status != 0 or not line:
            megabytes = self._memory // 2**20
            raise Unusable(f"the file is broken, or needs more than {megabytes} MiB of memory to be read")
        refusal = orjson.loads(head)["refusal"]
        if refusal is not None:
            raise Unusable(str(refusal))
        return body
