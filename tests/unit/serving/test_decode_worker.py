"""The process that decodes untrusted files."""

import io
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from backends.serving import decode_worker as module
from backends.serving.decode_worker import DecodeWorker
from backends.serving.errors import EngineFailed, InvalidValue
from backends.serving.images import read_image
from backends.serving.interpreters import find_interpreters

FUNCTIONS = "tests.unit.serving.decode_worker_functions"


@pytest.fixture
def worker() -> Iterator[DecodeWorker]:
    worker = DecodeWorker()
    yield worker
    worker.close()


def call(
    worker: DecodeWorker, name: str, file: bytes = b"file", *, max_reply_bytes: int = 1000, **options: object
) -> tuple[dict[str, Any], bytes]:
    """Call one of the functions, and return its values and bytes."""
    values, body = worker.call(f"{FUNCTIONS}:{name}", file, param="image", max_reply_bytes=max_reply_bytes, **options)
    return values, bytes(body)


def test_a_function_runs_in_another_process(worker: DecodeWorker) -> None:
    values, body = call(worker, "repeat", b"ab" * 2_000_000, max_reply_bytes=8_000_000, times=2)
    assert (values, body) == ({"times": 2}, b"ab" * 4_000_000)
    first, _ = call(worker, "describe_process")
    second, _ = call(worker, "describe_process")
    assert first["process"] != second["process"], "nothing of one file is left for the next"
    assert first["parent"] == second["parent"] != psutil.Process().pid
    assert not [name for name in first["environment"] if name.startswith(("TRITON", "SECRET"))]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("refuse", r"\[invalid_value:image\] No\.$"),
        ("crash", "broken, or takes too much memory"),
        ("exhaust_memory", "broken, or takes too much memory"),
        ("raise_error", "broken, or takes too much memory"),
        ("spin", r"within 0\.5 seconds"),
        ("sleep", r"within 0\.5 seconds"),
        ("return_too_much", "broken, or takes too much memory"),
    ],
)
def test_a_failure_names_the_file_and_the_next_file_is_decoded(worker: DecodeWorker, name: str, message: str) -> None:
    call(worker, "describe_process")
    worker.max_cpu_seconds = 0.5
    with pytest.raises(InvalidValue, match=message):
        call(worker, name)
    worker.max_cpu_seconds = 60
    assert call(worker, "repeat", b"x", times=3) == ({"times": 3}, b"xxx")


def test_a_missing_interpreter_is_an_engine_failure(worker: DecodeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_interpreters", lambda: iter(["/no/such/python3"]))
    with pytest.raises(EngineFailed, match="No process could be started"):
        call(worker, "describe_process")
    monkeypatch.setattr(module, "find_interpreters", lambda: iter(()))
    with pytest.raises(EngineFailed, match="No Python interpreter was found"):
        call(worker, "describe_process")


def test_the_running_interpreter_comes_before_those_on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = tmp_path / "python3"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list(find_interpreters())[:2] == [sys.executable, str(other)]
    monkeypatch.setattr(sys, "executable", "/opt/backends/python/triton_python_backend_stub")
    assert next(find_interpreters()) == str(other)


def test_the_process_ends_with_the_worker(worker: DecodeWorker) -> None:
    parent = psutil.Process(int(call(worker, "describe_process")[0]["parent"]))
    worker.close()
    assert not parent.is_running()


def test_decoding_an_image_takes_little_processor_time_of_this_process() -> None:
    """A decoder in this process would hold Python's global lock, and delay the next batch for seconds."""
    large = io.BytesIO()
    Image.new("RGB", (7000, 7000), "red").save(large, "WEBP", lossless=True, quality=0, method=0)
    small = io.BytesIO()
    Image.new("RGB", (8, 8)).save(small, "PNG")
    read_image(small.getvalue())
    processor_seconds = []

    def read() -> None:
        started = time.thread_time()
        assert read_image(large.getvalue()).size == (7000, 7000)
        processor_seconds.append(time.thread_time() - started)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert processor_seconds[0] < 0.25, "most of this time goes into receiving 147 MB of pixels"
