"""The GPUs of this machine, as `nvidia-smi` reports them."""

import re
import shutil
import subprocess
from dataclasses import dataclass

QUERY = ("index", "name", "driver_version", "compute_cap", "memory.total", "memory.free")
"""Fields of `nvidia-smi --query-gpu`; memory in MiB."""

MEBIBYTE = 2**20


class GpuQueryFailed(RuntimeError):
    """`nvidia-smi` is missing or failed; the message is its own, in one line."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU. Memory is in bytes, None where the driver does not tell it (memory that is shared with the CPU)."""

    index: int
    name: str
    driver: str
    compute_capability: str | None
    """Such as `9.0`; None if the driver is too old to tell."""
    total_memory: int | None
    free_memory: int | None

    def is_at_least(self, capability: str) -> bool:
        """Return whether the GPU has this compute capability or a higher one; True if its own is unknown."""
        return self.compute_capability is None or _version(self.compute_capability) >= _version(capability)


def find_gpus() -> list[Gpu]:
    """Return the GPUs of this machine. Raises GpuQueryFailed, also where there are none."""
    text = _run(f"--query-gpu={','.join(QUERY)}", "--format=csv,noheader,nounits")
    return parse_gpus(text)


def cuda_version() -> str | None:
    """Return the newest CUDA release that the driver runs, such as `12.8`; None if `nvidia-smi` does not tell."""
    for options in (("--version",), ()):  # releases before 535 tell it in the header of their table alone
        try:
            found = re.search(r"CUDA(?: UMD)? Version\s*:\s*(\d+\.\d+)", _run(*options))
        except GpuQueryFailed:
            continue
        if found is not None:
            return found[1]
    return None


def parse_gpus(text: str) -> list[Gpu]:
    """Parse the answer to `QUERY`. Raises GpuQueryFailed if a line has another number of fields."""
    gpus = []
    for line in text.strip().splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) != len(QUERY) or not fields[0].isdigit():
            raise GpuQueryFailed(f"nvidia-smi answered {line!r}")
        index, name, driver, capability, total, free = fields
        known = re.fullmatch(r"\d+\.\d+", capability) is not None
        gpus.append(Gpu(int(index), name, driver, capability if known else None, _bytes(total), _bytes(free)))
    return gpus


def compute_capabilities() -> list[str]:
    """Return the different compute capabilities of this machine's GPUs; empty if there are none."""
    try:
        found = {gpu.compute_capability for gpu in find_gpus()}
    except GpuQueryFailed:
        return []
    return sorted((capability for capability in found if capability is not None), key=_version)


def _run(*options: str) -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        raise GpuQueryFailed("nvidia-smi is not installed")
    try:
        ran = subprocess.run([program, *options], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise GpuQueryFailed(f"nvidia-smi does not answer: {error}") from error
    if ran.returncode != 0:
        message = " ".join((ran.stdout + ran.stderr).split())
        raise GpuQueryFailed(message or f"nvidia-smi ended with status {ran.returncode}")
    return ran.stdout


def _bytes(mebibytes: str) -> int | None:
    """Return a number of MiB in bytes; None for `[N/A]` and `[Not Supported]`."""
    return int(mebibytes) * MEBIBYTE if mebibytes.isdigit() else None


def _version(capability: str) -> tuple[int, ...]:
    return tuple(int(part) for part in capability.split("."))
