"""What all tests stand on."""

import gc
import signal
from collections.abc import Iterator

import pytest

# Shells let what they start in the background ignore SIGINT, and what the tests start would ignore it, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_CHECKED = ("tests/unit/", "tests/wire/", "tests/architecture/", "tests/fakes/")
_SLOW = ("triton", "exports", "gpu")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--after-check", action="store_true", help="leave out what `make check` runs (Makefile)")
    parser.addoption("--attack-table", metavar="FILE", help="write what attacks cost into a file (tests/attack)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--after-check"):
        return
    checked, left = [], []
    for item in items:
        slow = any(item.get_closest_marker(mark) for mark in _SLOW)
        (checked if item.nodeid.startswith(_CHECKED) and not slow else left).append(item)
    config.hook.pytest_deselected(items=checked)
    items[:] = left


@pytest.fixture
def frozen_heap() -> Iterator[None]:
    """Keep the garbage collector from all that tests have made until now, as `serve` does with what a gateway has made.

    For tests that measure processor time: to look through the heap of thousands of tests takes a tenth of a second.
    """
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
