"""A file store in a temporary folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.files.file_store import FileStore
from gateway.settings import Settings


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., FileStore]:
    def files(**settings: Any) -> FileStore:
        return FileStore(Settings(**{"state": tmp_path / "state", **settings}))

    return files
