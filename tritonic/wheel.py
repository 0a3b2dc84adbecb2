"""The Triton server inside the nvidia-pytriton wheel: finds its files and assembles the backend directory.

The wheel holds the server, its Python backend, and one stub for each Python version. The stub is the program that runs
a Python model. Triton wants the stub in the folder of the Python backend, and the project's backends in folders beside
it.
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

MODEL_ENVIRONMENT = "TRITONIC_MODEL_ENVIRONMENT"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


class TritonMissingError(TritonicError):
    """The embedded Triton is not installed, or has no stub for this Python; the message says what to do."""


@dataclass(frozen=True, slots=True)
class TritonWheel:
    """Paths of the installed wheel."""

    server: Path
    python_backend: Path
    stub: Path
    libraries: Path


def find_wheel() -> TritonWheel:
    """Find the installed wheel. Raises TritonMissingError when it is absent or has no stub for this Python."""
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
    """Return the shared libpython of this interpreter; None without one, or when the system's linker finds it."""
    name = sysconfig.get_config_var("INSTSONAME")
    if not isinstance(name, str) or ".so" not in name:
        return None
    for folder in (sysconfig.get_config_var("LIBDIR"), Path(sys.base_prefix) / "lib"):
        path = Path(str(folder)) / name
        if path.is_file():
            return path
    return None


def project_backends() -> list[Path]:
    """Return the folders of the project's Python-based backends: those with a `model.py`."""
    spec = importlib.util.find_spec("backends")
    roots = list(spec.submodule_search_locations or []) if spec else []
    return sorted(path.parent for root in roots for path in Path(root).glob("*/model.py"))


def assemble_backends(wheel: TritonWheel, folder: Path, backends: list[Path]) -> Path:
    """Create and return the backend directory in `folder`: the Python backend, its stub, and links to `backends`."""
    directory = folder / "backends"
    shutil.rmtree(directory, ignore_errors=True)
    # A copy, because the stub looks for its Python module beside itself, and the wheel has them in two folders.
    shutil.copytree(wheel.python_backend, directory / "python", ignore=shutil.ignore_patterns("__pycache__"))
    # Compiled now: on a full disk a model's process would write truncated bytecode, which breaks every later load.
    if not compileall.compile_dir(directory / "python", quiet=2):
        raise OSError(f"{directory} cannot be written")
    shutil.copy2(wheel.stub, directory / "python" / wheel.stub.name)
    for backend in backends:
        (directory / backend.name).symlink_to(backend.resolve())
    libraries = folder / "lib"
    shutil.rmtree(libraries, ignore_errors=True)
    libraries.mkdir()
    if (libpython := python_library()) is not None:
        # A link, so that no other library of the interpreter's folder shadows the system's libraries.
        (libraries / libpython.name).symlink_to(libpython)
    return directory


def server_environment(wheel: TritonWheel, folder: Path) -> dict[str, str]:
    """Environment variables for the server, after `assemble(wheel, folder, …)`.

    The stub ignores PYTHONPATH. It takes the site-packages of the first `python3` on PATH, so this environment's
    comes first. `TRITONIC_MODEL_ENVIRONMENT` names another one, of the same version of Python, for models whose engine
    cannot be installed beside the command.
    """
    env = dict(os.environ)
    for secret in ("TRITONIC_TRITON_SECRET", "TRITONIC_WEBHOOK_SECRET"):
        env.pop(secret, None)  # models do not need it, and their child processes would inherit it
    own = env.get(MODEL_ENVIRONMENT)
    prefix = Path(own).resolve() if own else Path(sys.prefix)
    env["PATH"] = os.pathsep.join([str(prefix / "bin"), env.get("PATH", os.defpath)])
    libraries = [str(wheel.libraries), str(folder / "lib"), env.get("LD_LIBRARY_PATH", "")]
    env["LD_LIBRARY_PATH"] = os.pathsep.join(part for part in libraries if part)
    return env
