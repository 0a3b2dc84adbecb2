"""The Triton server inside the nvidia-pytriton wheel: where its parts lie, and how they are put together.

The wheel holds the server, its Python backend, and one stub for each Python version: the process that a Python model
runs in. Triton wants the stub beside the backend, and our backends in folders beside those.
"""

import compileall
import importlib.util
import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from tritonic.errors import TritonicError

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


class TritonMissingError(TritonicError):
    """The embedded Triton is not installed, or not for this Python; the message says what to do."""


@dataclass(frozen=True, slots=True)
class TritonWheel:
    """Paths of the installed wheel."""

    server: Path
    python_backend: Path
    stub: Path
    libraries: Path


def find_wheel() -> TritonWheel:
    """Locate the wheel. Raises TritonMissingError when it is absent or has no stub for this Python."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise TritonMissingError(
            "The Triton server is not installed: pip install 'tritonic[embedded]' -c constraints.txt"
        )
    package = Path(spec.origin).parent
    root = package / "tritonserver"
    wheel = TritonWheel(
        server=root / "bin" / "tritonserver",
        python_backend=root / "backends" / "python",
        stub=root / "python_backend_stubs" / PYTHON / "triton_python_backend_stub",
        libraries=package.parent / "nvidia_pytriton.libs",
    )
    if not wheel.server.is_file():
        raise TritonMissingError(f"The nvidia-pytriton wheel is incomplete: {wheel.server} is not there; reinstall it.")
    if not wheel.stub.is_file():
        have = sorted((path.name for path in (root / "python_backend_stubs").iterdir()), key=lambda v: int(v[2:]))
        raise TritonMissingError(f"This Triton has no stub for Python {PYTHON}, only for {', '.join(have)}.")
    return wheel


def python_library() -> Path | None:
    """The shared libpython of this interpreter; None where there is none, or where the system's linker finds it."""
    name = sysconfig.get_config_var("INSTSONAME")
    if not isinstance(name, str) or ".so" not in name:
        return None
    for folder in (sysconfig.get_config_var("LIBDIR"), Path(sys.base_prefix) / "lib"):
        path = Path(str(folder)) / name
        if path.is_file():
            return path
    return None


def project_backends() -> list[Path]:
    """The folders of the project's own Python-based backends: those that hold a `model.py`."""
    spec = importlib.util.find_spec("backends")
    roots = list(spec.submodule_search_locations or []) if spec else []
    return sorted(path.parent for root in roots for path in Path(root).glob("*/model.py"))


def assemble_backends(wheel: TritonWheel, folder: Path, backends: list[Path]) -> Path:
    """Make the backend directory in `folder` anew: the wheel's Python backend with the stub, links to `backends`."""
    directory = folder / "backends"
    shutil.rmtree(directory, ignore_errors=True)
    # Copied, because the stub looks for its Python module beside itself, and the wheel has them apart.
    shutil.copytree(wheel.python_backend, directory / "python", ignore=shutil.ignore_patterns("__pycache__"))
    # Compiled now: bytecode that a model's process wrote on a full disk would be cut off, and break every later load.
    if not compileall.compile_dir(directory / "python", quiet=2):
        raise OSError(f"{directory} cannot be written")
    shutil.copy2(wheel.stub, directory / "python" / wheel.stub.name)
    for backend in backends:
        (directory / backend.name).symlink_to(backend.resolve())
    libraries = folder / "lib"
    shutil.rmtree(libraries, ignore_errors=True)
    libraries.mkdir()
    if (libpython := python_library()) is not None:
        # A link of its own, so that nothing else from the interpreter's library folder shadows the system's libraries.
        (libraries / libpython.name).symlink_to(libpython)
    return directory


def server_environment(wheel: TritonWheel, folder: Path) -> dict[str, str]:
    """Environment variables for the server, after `assemble(wheel, folder, …)`.

    The stub ignores PYTHONPATH. It takes the site-packages of the first `python3` on PATH, so this environment's
    comes first.
    """
    env = dict(os.environ)
    env.pop("TRITONIC_TRITON_SECRET", None)  # models need none to be asked, and what they start inherits what they have
    env["PATH"] = os.pathsep.join([str(Path(sys.prefix) / "bin"), env.get("PATH", os.defpath)])
    libraries = [str(wheel.libraries), str(folder / "lib"), env.get("LD_LIBRARY_PATH", "")]
    env["LD_LIBRARY_PATH"] = os.pathsep.join(part for part in libraries if part)
    return env
