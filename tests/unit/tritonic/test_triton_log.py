from tritonic.logfile import MAX_LOG_BYTES, LogFile
from tritonic.triton_log import error_lines

# From Triton 2.51: a start without a GPU, with one broken model, and with its port taken.
LOG = """\
W1121 08:00:37.013362 6468 pinned_memory_manager.cc:273] "Unable to allocate pinned system memory"
E1121 08:00:37.013499 6468 server.cc:241] "CudaDriverHelper has not been initialized."
I1121 08:00:37.014431 6468 model_lifecycle.cc:472] "loading: dummy:1"
E1121 08:00:38.001122 6468 model_lifecycle.cc:642] "failed to load 'dummy' version 1: Internal: ValueError: torn"
E1121 08:00:38.371423 6468 main.cc:245] "failed to start GRPC service: Socket '127.0.0.1:18001' already in use "
+-------+---------+--------+
| dummy | 1       | READY  |
"""


def test_only_errors_are_returned_without_those_of_every_start():
    assert error_lines(LOG.splitlines()) == [
        "failed to load 'dummy' version 1: Internal: ValueError: torn",
        "failed to start GRPC service: Socket '127.0.0.1:18001' already in use",
    ]


def test_a_missing_library_is_telling():
    line = "stub: error while loading shared libraries: libpython3.11.so.1.0: cannot open shared object file"
    assert error_lines([line, 'I1121 08:00:37.014431 6468 x.cc:1] "fine"']) == [line]


def test_without_errors_the_last_lines_count():
    assert error_lines(["one", "", "+---+", "two"], limit=1) == ["two"]


def test_a_log_is_read_from_the_start_of_the_run(tmp_path):
    log = LogFile(tmp_path / "deep" / "triton.log")
    for run in ("first\n", "second\n"):
        with log.open() as file:
            file.write(run.encode())
    assert log.lines() == ["second"]
    assert log.path.read_text() == "first\nsecond\n"


def test_a_large_log_is_rotated(tmp_path):
    log = LogFile(tmp_path / "triton.log")
    with log.path.open("wb") as file:
        file.truncate(MAX_LOG_BYTES + 1)
    log.open().close()
    assert log.path.stat().st_size == 0
    assert (tmp_path / "triton.log.1").stat().st_size == MAX_LOG_BYTES + 1
