"""Files in a folder of the test's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.files.files import Files
from gateway.settings import Settings


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Files]:
    def files(**settings: Any) -> Files:
        return Files(Settings(**{"state": tmp_path / "state", **settings}))

    return files
