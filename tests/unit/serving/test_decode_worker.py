"""The process that decodes untrusted files."""

import io
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

from backends.diffusion.images import read_image
from backends.serving import decode_worker as module
from backends.serving.decode_worker import DecodeWorker
from backends.serving.errors import EngineFailed, InvalidValue
from backends.serving.interpreters import find_interpreters

HERE = "tests.unit.serving.decode_worker_functions"


@pytest.fixture
def worker() -> Iterator[DecodeWorker]:
    made = DecodeWorker()
    yield made
    made.close()


def ask(worker: DecodeWorker, name: str, file: bytes = b"file", *, largest: int = 1000, **options: object):
    return worker.call(f"{HERE}:{name}", file, param="image", max_reply_bytes=largest, **options)


def test_a_function_runs_in_another_process(worker: DecodeWorker) -> None:
    assert ask(worker, "doubled", b"ab" * 2_000_000, largest=8_000_000, times=2) == ({"times": 2}, b"ab" * 4_000_000)
    first, _ = ask(worker, "where")
    second, _ = ask(worker, "where")
    assert first["process"] != second["process"], "nothing of one file is left for the next"
    assert first["parent"] == second["parent"] != psutil.Process().pid
    assert not [name for name in first["names"] if name.startswith(("TRITON", "SECRET"))]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("refuses", r"\[invalid_value:image\] No\.$"),
        ("crashes", "broken, or takes too much memory"),
        ("eats", "broken, or takes too much memory"),
        ("raises", "broken, or takes too much memory"),
        ("spins", r"within 0\.5 seconds"),
        ("sleeps", r"within 0\.5 seconds"),
        ("says_too_much", "broken, or takes too much memory"),
    ],
)
def test_a_failure_names_the_file_and_the_next_file_is_decoded(worker: DecodeWorker, name: str, why: str) -> None:
    ask(worker, "where")
    worker.max_cpu_seconds = 0.5
    began = time.monotonic()
    with pytest.raises(InvalidValue, match=why):
        ask(worker, name)
    assert time.monotonic() - began < 10
    worker.max_cpu_seconds = 5
    assert ask(worker, "doubled", b"x", times=3) == ({"times": 3}, b"xxx")


def test_a_missing_interpreter_is_an_engine_failure(worker: DecodeWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_interpreters", lambda: iter(["/no/such/python3"]))
    with pytest.raises(EngineFailed, match="No process could be started"):
        ask(worker, "where")
    monkeypatch.setattr(module, "find_interpreters", lambda: iter(()))
    with pytest.raises(EngineFailed, match="No Python interpreter was found"):
        ask(worker, "where")


def test_the_running_interpreter_comes_before_those_on_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    other = tmp_path / "python3"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert list(find_interpreters())[:2] == [sys.executable, str(other)]
    monkeypatch.setattr(sys, "executable", "/opt/backends/python/triton_python_backend_stub")
    assert next(find_interpreters()) == str(other)


def test_the_process_ends_with_the_worker(worker: DecodeWorker) -> None:
    parent = psutil.Process(int(str(ask(worker, "where")[0]["parent"])))
    worker.close()
    assert not parent.is_running()


def test_decoding_an_image_takes_little_time_of_this_process() -> None:
    """A decoder in this process would hold Python's global lock, and delay the next batch for seconds."""
    out = io.BytesIO()
    Image.new("RGB", (7000, 7000), "red").save(out, "WEBP", lossless=True, quality=0, method=0)
    small = io.BytesIO()
    Image.new("RGB", (8, 8)).save(small, "PNG")
    read_image(small.getvalue())
    spent = []

    def read() -> None:
        began = time.thread_time()
        assert read_image(out.getvalue()).size == (7000, 7000)
        spent.append(time.thread_time() - began)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    assert spent[0] < 0.25, "seconds of this process, most of them for taking 147 MB of pixels over"
