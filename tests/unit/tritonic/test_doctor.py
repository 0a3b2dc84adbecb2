import importlib.metadata
import importlib.util
import io
import socket
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from tritonic import disk_space, doctor, ports, wheel
from tritonic.findings import Finding


def print_findings(*findings: Finding) -> tuple[bool, str]:
    output = io.StringIO()
    is_good = doctor.print_findings(iter(findings), Console(file=output, width=200))
    return is_good, output.getvalue()


def test_missing_things_fail_and_notes_do_not():
    assert print_findings(Finding("GPU", "note", "none"))[0] is True
    good, text = print_findings(
        Finding("Triton", "missing", "not there", "pip install [it]"), Finding("Disk", "good", "fine")
    )
    assert good is False
    assert "Triton: not there" in text
    assert "pip install [it]" in text
    assert "Fix the 1 marked ✗ first" in text


def test_missing_packages_are_named(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else real(name))
    build = next(finding for finding in doctor._packages() if finding.what == "Packages to build models")
    assert (build.state, build.detail) == ("missing", "without torch")
    assert "constraints.txt" in build.remedy


def test_numpy_2_is_reported_as_missing_numpy_1(monkeypatch):
    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.3.4" if name == "numpy" else real(name))
    finding = list(doctor._packages())[-1]
    assert finding.state == "missing"
    assert "numpy 2.3.4" in finding.detail


def test_the_installed_triton_starts():
    finding = doctor._triton()
    assert finding.state == "good", finding


def test_missing_libraries_are_reported_with_their_debian_packages(monkeypatch):
    monkeypatch.setattr(doctor, "_missing_libraries", lambda binary, env: ["libpython3.11.so.1.0", "libexpat.so.1"])
    finding = doctor._triton()
    assert finding.state == "missing"
    assert finding.remedy == f"apt-get install libexpat1 libpython{wheel.PYTHON}"


def test_the_output_of_ldd_is_parsed(monkeypatch):
    output = "\tlibpython3.11.so.1.0 => not found\n\tlibc.so.6 => /lib/libc.so.6 (0x00007f)\n"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, output, ""))
    assert doctor._missing_libraries(Path("stub"), {}) == ["libpython3.11.so.1.0"]


def test_a_python_without_a_stub_is_reported(monkeypatch):
    monkeypatch.setattr(wheel, "PYTHON", "3.99")
    finding = doctor._triton()
    assert finding.state == "missing"
    assert "no stub for Python 3.99, only for 3.8, 3.9, 3.10, 3.11" in finding.detail


@pytest.mark.parametrize(
    ("free", "state"), [(10, "missing"), (disk_space.RUN_BYTES, "note"), (disk_space.BUILD_BYTES, "good")]
)
def test_free_disk_space_decides_the_finding(monkeypatch, tmp_path, free, state):
    monkeypatch.setattr(disk_space, "free_bytes", lambda path: free)
    assert doctor._disk(tmp_path).state == state


def test_a_taken_port_is_found(tmp_path):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        first = next(doctor._ports("127.0.0.1", port, tmp_path))
    assert first.state == "missing"
    assert f"Port {port}, which the gateway needs, is in use by process" in first.detail
    free = ports.free_ports(1)[0]
    assert next(doctor._ports("127.0.0.1", free, tmp_path)).state == "good"


def test_absent_and_failing_programs_have_no_first_line():
    assert doctor._first_line("no-such-program-anywhere") is None
    assert doctor._first_line("false") is None
    assert doctor._first_line("echo", "one") == "one"


def test_a_full_disk_is_reported(monkeypatch, tmp_path):
    monkeypatch.setattr(disk_space, "free_bytes", lambda path: 5 * disk_space.MEGABYTE)
    with pytest.raises(disk_space.DiskError, match=r"has 5 MB left, and running needs about 64 MB"):
        disk_space.check_free_space(tmp_path, disk_space.RUN_BYTES, "running")


def test_free_space_is_known_for_folders_that_do_not_exist_yet(tmp_path):
    assert disk_space.free_bytes(tmp_path / "not" / "yet") > 0
