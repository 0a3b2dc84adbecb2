"""Files inside packages of Python and of npm. The packages are downloaded and unpacked, never installed.

Each file is pinned by its hash.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from builders import npm_registry
from builders.checkpoint import sha256
from builders.errors import MissingDependency, SourceUnavailable
from builders.progress import Progress


@dataclass(frozen=True, slots=True)
class WheelPart:
    """A file inside a wheel."""

    requirement: str
    """pip requirement of the wheel."""
    path: str
    """Path of the file in the wheel."""

    @property
    def registry(self) -> str:
        """The registry that the package is downloaded from."""
        return "the Python package index"

    def download(self, folder: Path) -> Path:
        """Download the wheel into `folder`. Raises SourceUnavailable, MissingDependency."""
        return download_wheel(self.requirement, folder)

    @contextmanager
    def open(self, wheel: Path) -> Iterator[tuple[IO[bytes], int]]:
        """Yield the file in the downloaded wheel, and its size in bytes. Raises KeyError if the wheel lacks it."""
        with zipfile.ZipFile(wheel) as archive, archive.open(self.path) as file:
            yield file, archive.getinfo(self.path).file_size


@dataclass(frozen=True, slots=True)
class NpmArchive:
    """The archive of a package of npm, a compressed tar file, as a whole."""

    name: str
    version: str

    @property
    def requirement(self) -> str:
        """The package as npm names it."""
        return f"{self.name}@{self.version}"

    @property
    def registry(self) -> str:
        """The registry that the package is downloaded from."""
        return "the npm registry"

    def download(self, folder: Path) -> Path:
        """Download the archive into `folder`. Raises SourceUnavailable."""
        return npm_registry.download(self.name, self.version, folder)

    @contextmanager
    def open(self, archive: Path) -> Iterator[tuple[IO[bytes], int]]:
        """Yield the downloaded archive, and its size in bytes."""
        with archive.open("rb") as file:
            yield file, archive.stat().st_size


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """A file that one or several packages hold."""

    name: str
    """Name that the file gets in the cache."""
    parts: tuple[WheelPart | NpmArchive, ...]
    """The parts of the file, in order: large files are split among packages."""
    sha256: str
    """Hash of the whole file, in hexadecimal."""
    size_bytes: int

    def cached_path(self) -> Path:
        """Return where the cache keeps the file, whether or not it is there."""
        return cache_folder() / "packaged" / self.sha256 / self.name

    def is_cached(self) -> bool:
        """Return whether the cache holds the file, with the right contents."""
        path = self.cached_path()
        return path.is_file() and path.stat().st_size == self.size_bytes and sha256(path) == self.sha256

    def mismatch(self, difference: str) -> SourceUnavailable:
        """Return the error of contents that are not the pinned ones."""
        packages = " and ".join(dict.fromkeys(part.requirement for part in self.parts))
        return SourceUnavailable(f"{packages} holds other weights than expected: {difference}. They were not used.")


def fetch(files: Sequence[PackagedFile], progress: Progress) -> list[Path]:
    """Return the files in the cache, after a download of the packages of those that are not there.

    Each package is downloaded once. Raises SourceUnavailable, MissingDependency.
    """
    missing = [file for file in files if not file.is_cached()]
    if missing:
        with tempfile.TemporaryDirectory(dir=open_cache(), prefix="download-") as folder:
            parts = {part.requirement: part for file in missing for part in file.parts}
            packages: dict[str, Path] = {}
            for number, (requirement, part) in enumerate(parts.items()):
                progress.update(f"downloading {requirement} from {part.registry}", 0.8 * number / len(parts))
                target = Path(folder) / str(number)
                target.mkdir()
                packages[requirement] = part.download(target)
            for file in missing:
                progress.update(f"unpacking {file.name}", 0.8)
                _install(file, packages, Path(folder) / "unpacked")
    return [file.cached_path() for file in files]


def _install(file: PackagedFile, packages: dict[str, Path], unpacked: Path) -> None:
    """Join the parts of a file, check its size and hash, and move it into the cache."""
    with unpacked.open("wb") as output:
        size = 0
        for part in file.parts:
            try:
                with part.open(packages[part.requirement]) as (source, part_size):
                    size += part_size
                    if size > file.size_bytes:
                        raise file.mismatch(f"{size} bytes instead of {file.size_bytes}")
                    shutil.copyfileobj(source, output, 1 << 20)
            except KeyError:
                assert isinstance(part, WheelPart)
                raise file.mismatch(f"there is no {part.path}") from None
    if size != file.size_bytes:
        raise file.mismatch(f"{size} bytes instead of {file.size_bytes}")
    if (found := sha256(unpacked)) != file.sha256:
        raise file.mismatch(f"sha256 {found} instead of {file.sha256}")
    file.cached_path().parent.mkdir(exist_ok=True)
    unpacked.replace(file.cached_path())


def open_cache() -> Path:
    """Return the folder of the cache that keeps packaged files, made unless it exists. Raises SourceUnavailable."""
    folder = cache_folder() / "packaged"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SourceUnavailable(
            f"The cache {folder} cannot be written: {error.strerror}. Name another with TRITONIC_CACHE."
        ) from error
    return folder


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
