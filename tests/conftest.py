"""Options of pytest and fixtures that all tests share."""

import gc
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# Shells let what they start in the background ignore SIGINT, and what the tests start would ignore it, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_CHECKED = ("tests/unit/", "tests/wire/", "tests/architecture/", "tests/fakes/")
_SLOW = ("triton", "exports", "gpu")
_SLOW_MARK = re.compile(rf"\bmark\.({'|'.join(_SLOW)})\b")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--after-check", action="store_true", help="leave out what `make check` runs (Makefile)")
    parser.addoption(
        "--engine",
        choices=["onnxruntime", "vllm"],
        default="onnxruntime",
        help="engine of the chat model in tests/triton",
    )
    parser.addoption("--attack-table", metavar="FILE", help="write what attacks cost into a file (tests/attack)")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With `--after-check`, import no file that has only fast tests: importing all of them takes half a minute."""
    if not config.getoption("--after-check") or collection_path.suffix != ".py":
        return None
    checked = collection_path.relative_to(config.rootpath).as_posix().startswith(_CHECKED)
    return True if checked and not _SLOW_MARK.search(collection_path.read_text()) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--after-check"):
        return
    fast: list[pytest.Item] = []
    remaining: list[pytest.Item] = []
    for item in items:
        slow = any(item.get_closest_marker(mark) for mark in _SLOW)
        (fast if item.nodeid.startswith(_CHECKED) and not slow else remaining).append(item)
    config.hook.pytest_deselected(items=fast)
    items[:] = remaining


@pytest.fixture
def frozen_heap() -> Iterator[None]:
    """Exclude the objects of earlier tests from garbage collection, as `serve` does with those of the gateway's start.

    For tests that measure CPU time: a collection over the objects of thousands of tests takes a tenth of a second.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
