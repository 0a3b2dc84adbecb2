"""The machine and the versions that a benchmark ran on."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

MEASURED = ("tritonic", "nvidia-pytriton", "onnxruntime", "grpcio", "uvicorn", "uvloop", "aiohttp", "numpy")
"""The packages whose versions affect most benchmarks. Tables list the versions of other programs."""

LOAD = "load when it began"
"""The field of the load average at the start. The name is that of stored result files."""


def machine() -> dict[str, str]:
    """Return processor, usable cores, memory, system and load. Nothing in it identifies this machine."""
    cores = len(os.sched_getaffinity(0))
    facts = {
        "processor": _processor(),
        "cores": str(cores),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GB",
        "system": f"{platform.system()} {platform.machine()}",
        LOAD: f"{os.getloadavg()[0]:.1f}",
    }
    if cards := _gpus():
        facts["cards"] = cards
    return facts


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages of `MEASURED`."""
    installed = {"Python": platform.python_version()}
    for name in MEASURED:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    if commit := _commit():
        installed["tritonic"] += f" at {commit}"
    return installed


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def _gpus() -> str:
    """Return the names and driver versions of the NVIDIA GPUs, "" if there are none."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return "; ".join(output.split("\n")).strip("; ")


def _commit() -> str:
    """Return the commit of the checkout, with a plus if files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(git, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
