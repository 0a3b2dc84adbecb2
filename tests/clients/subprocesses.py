"""Clients that are programs of their own."""

import asyncio
from pathlib import Path


async def output_of(
    *command: str | Path, seconds: float = 90, folder: Path | None = None, environment: dict[str, str] | None = None
) -> str:
    """Return what a program prints. Raises `AssertionError` where it fails, and `TimeoutError`."""
    ran = await asyncio.create_subprocess_exec(
        *command, cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(ran.communicate(), seconds)
    finally:
        if ran.returncode is None:
            ran.kill()
            await ran.wait()
    assert ran.returncode == 0, output.decode()
    return output.decode()
