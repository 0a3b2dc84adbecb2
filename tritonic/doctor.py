"""`tritonic doctor`: checks the requirements on this machine, and names a remedy for each missing one."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
from rich.console import Console
from rich.markup import escape

from tritonic import disk_space, ports, runfile, wheel
from tritonic.findings import Finding

GIGABYTE = 1024**3
INSTALL_COMMAND = "pip install -e '.[embedded,build]' -c constraints.txt, or simply `make up`"
EMBEDDED_MODULES = ("pytriton", "llguidance", "numpy", "onnxruntime", "PIL", "tokenizers")
BUILD_MODULES = ("torch", "transformers", "onnx", "onnxruntime_genai", "gguf")
DEBIAN_PACKAGES = {
    "libpython": "libpython{python}",
    "libexpat": "libexpat1",
    "libz": "zlib1g",
    "libstdc++": "libstdc++6",
}


def diagnose(host: str, port: int, state: Path) -> Iterator[Finding]:
    """Run all checks, and yield each finding as it is ready."""
    yield Finding("Python", "good", f"{platform.python_version()} in {sys.prefix}")
    yield _venv()
    yield _architecture()
    yield from _packages()
    yield _triton()
    yield _memory()
    yield _shared_memory()
    yield _disk(state)
    yield from _ports(host, port, state)
    yield _gpu()
    yield _docker()


def print_findings(findings: Iterator[Finding], console: Console) -> bool:
    """Print the findings as they come. Return whether Tritonic can run here."""
    marks = {"good": "[green]✓[/]", "note": "[yellow]![/]", "missing": "[red]✗[/]"}
    missing = 0
    for finding in findings:
        console.print(f"{marks[finding.state]} [bold]{finding.what}[/]: {escape(finding.detail)}")
        if finding.remedy:
            console.print(f"    {escape(finding.remedy)}")
        missing += finding.state == "missing"
    console.print()
    console.print("Tritonic can run here." if not missing else f"[red]Fix the {missing} marked ✗ first.[/]")
    return not missing


def _venv() -> Finding:
    if importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip"):
        return Finding("venv", "good", "virtual environments can be made")
    return Finding("venv", "missing", "the venv module is incomplete", "apt-get install python3-venv")


def _architecture() -> Finding:
    machine, libc = platform.machine(), " ".join(platform.libc_ver())
    if sys.platform == "linux" and machine == "x86_64":
        return Finding("Machine", "good", f"Linux on {machine}, {libc}, {os.cpu_count()} cores")
    remedy = (
        "The Triton wheel is for Linux on x86_64. Elsewhere, run `tritonic serve` in front of a Triton that runs there."
    )
    return Finding("Machine", "missing", f"{sys.platform} on {machine}", remedy)


def _packages() -> Iterator[Finding]:
    for name, modules, purpose in (
        ("embedded", EMBEDDED_MODULES, "to run Triton here"),
        ("build", BUILD_MODULES, "to build models"),
    ):
        absent = [module for module in modules if importlib.util.find_spec(module) is None]
        if absent:
            yield Finding(f"Packages {purpose}", "missing", f"without {', '.join(absent)}", INSTALL_COMMAND)
        else:
            yield Finding(f"Packages {purpose}", "good", f"all of the group `{name}` are installed")
    numpy = importlib.metadata.version("numpy")
    if int(numpy.split(".")[0]) >= 2:
        why = f"numpy {numpy}: with it, every tensor leaves the embedded Triton empty, without an error"
        yield Finding("numpy", "missing", why, "pip install 'numpy<2' -c constraints.txt")


def _triton() -> Finding:
    """Run `tritonserver --help`, and check that the server and the Python stub find their shared libraries."""
    try:
        found = wheel.find_wheel()
    except wheel.TritonMissingError as error:
        return Finding("Triton", "missing", str(error), INSTALL_COMMAND)
    with tempfile.TemporaryDirectory() as folder:
        wheel.assemble_backends(found, Path(folder), [])
        env = wheel.server_environment(found, Path(folder))
        absent = sorted({*_missing_libraries(found.server, env), *_missing_libraries(found.stub, env)})
        if absent:
            packages = {_debian_package(name) for name in absent}
            remedy = f"apt-get install {' '.join(sorted(packages))}"
            return Finding("Triton", "missing", f"these shared libraries are missing: {', '.join(absent)}", remedy)
        help_text = subprocess.run([found.server, "--help"], env=env, capture_output=True, timeout=60, check=False)
    if b"Usage: tritonserver" not in help_text.stdout + help_text.stderr:
        last = (help_text.stderr or help_text.stdout).decode(errors="replace").strip().splitlines()[-1:]
        return Finding("Triton", "missing", f"the server does not start: {' '.join(last)}", INSTALL_COMMAND)
    version = importlib.metadata.version("nvidia-pytriton")
    return Finding(
        "Triton", "good", f"the server of nvidia-pytriton {version} starts, and has a stub for {wheel.PYTHON}"
    )


def _missing_libraries(binary: Path, env: dict[str, str]) -> list[str]:
    ldd = subprocess.run(["ldd", str(binary)], env=env, capture_output=True, text=True, timeout=60, check=False)
    return [line.split()[0] for line in ldd.stdout.splitlines() if line.rstrip().endswith("not found")]


def _debian_package(library: str) -> str:
    stem = next((stem for stem in DEBIAN_PACKAGES if library.startswith(stem)), None)
    return DEBIAN_PACKAGES[stem].format(python=wheel.PYTHON) if stem else f"(the package with {library})"


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    detail = f"{memory.available / GIGABYTE:.1f} of {memory.total / GIGABYTE:.1f} GB free"
    if memory.available < GIGABYTE:
        return Finding("Memory", "missing", detail, "The default model needs about 1 GB to run; end other programs.")
    if memory.available < 4 * GIGABYTE:
        return Finding("Memory", "note", detail, "Enough to run the default model; building it needs about 4 GB.")
    return Finding("Memory", "good", detail)


def _shared_memory() -> Finding:
    folder = Path("/dev/shm")
    if not os.access(folder, os.W_OK):
        return Finding("Shared memory", "missing", f"{folder} cannot be written", "Triton passes tensors through it.")
    free = disk_space.free_bytes(folder) // disk_space.MEGABYTE
    if free < 64:
        return Finding("Shared memory", "missing", f"{free} MB free in {folder}", "In a container, give --shm-size=1g.")
    return Finding("Shared memory", "good", f"{free} MB free in {folder}")


def _disk(state: Path) -> Finding:
    free = disk_space.free_bytes(state)
    detail = f"{free / GIGABYTE:.1f} GB free for {state.absolute().parent}"
    if free < disk_space.RUN_BYTES:
        return Finding("Disk", "missing", detail, "Free some space: there is no room for logs.")
    if free < disk_space.BUILD_BYTES:
        remedy = f"Building the default model needs about {disk_space.BUILD_BYTES // disk_space.MEGABYTE} MB."
        return Finding("Disk", "note", detail, remedy)
    return Finding("Disk", "good", detail)


def _ports(host: str, port: int, state: Path) -> Iterator[Finding]:
    if (here := runfile.find_running(state)) is not None:
        yield Finding("Ports", "good", f"Tritonic runs here already, {here.gateway_url or 'and is starting'}")
        return
    for address, number, purpose, remedy in (
        (host, port, "the gateway", ports.port_hint("--port", "TRITONIC_PORT")),
        ("127.0.0.1", 8002, "Triton's metrics endpoint", ports.port_hint("--triton-metrics-port")),
    ):
        try:
            ports.check_free(address, number, purpose, remedy)
        except ports.PortError as error:
            yield Finding("Port", "missing", str(error))
        else:
            yield Finding("Port", "good", f"{number} is free for {purpose}")


def _first_line(*argv: str) -> str | None:
    """Return the first line that a program prints; None if it is not installed, fails, or prints nothing."""
    if shutil.which(argv[0]) is None:
        return None
    try:
        ran = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return next(iter(ran.stdout.strip().splitlines()), None) if ran.returncode == 0 else None


def _gpu() -> Finding:
    gpu = _first_line("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    if gpu is None:
        return Finding("GPU", "note", "none with a working driver; Triton runs on the CPU")
    return Finding("GPU", "good", f"{gpu}; the containers use it, the embedded Triton runs on the CPU")


def _docker() -> Finding:
    version = _first_line("docker", "compose", "version") or _first_line("docker-compose", "--version")
    if version is None or _first_line("docker", "info", "--format", "{{.ServerVersion}}") is None:
        return Finding("Docker", "note", "no engine with compose answers; it is needed for docker-compose.yml alone")
    return Finding("Docker", "good", version)
