"""LangChain's loader of recordings, run from here. `make langchain` installs it into a folder of its own.

`TRITONIC_LANGCHAIN` may name another folder.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.clients.subprocesses import output_of

FOLDER = Path(os.environ.get("TRITONIC_LANGCHAIN") or Path(__file__).parents[2] / ".langchain")
SCRIPT = Path(__file__).with_name("langchain") / "transcribe.py"

needs_langchain = pytest.mark.skipif(
    not (FOLDER / "langchain_community").is_dir(), reason=f"LangChain is not in {FOLDER}: make langchain"
)


async def load_documents(path: Path, base_url: str, model: str, response_format: str = "") -> list[dict[str, Any]]:
    """Return the documents that the loader makes of a recording: `text`, `source` and `chunk` of each."""
    more = [response_format] if response_format else []
    output = await output_of(
        sys.executable,
        SCRIPT,
        path,
        base_url,
        model,
        *more,
        seconds=120,
        environment={"PATH": os.environ["PATH"], "PYTHONPATH": str(FOLDER), "PYTHONWARNINGS": "ignore"},
    )
    documents: list[dict[str, Any]] = json.loads(output.splitlines()[-1])
    return documents
