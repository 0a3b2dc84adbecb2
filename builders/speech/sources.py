"""Sources of models that speak: packages, a local folder, or the Hugging Face hub."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from builders import sources
from builders.checkpoint import Checkpoint, sha256
from builders.errors import MissingDependency, RecipeError, SourceUnavailable
from builders.progress import Progress
from builders.speech.layout import SpeechLayout, read_layout
from builders.speech.packages import PACKAGED_SPEECH, SpeechPackage, fetch


class _SpeechSource:
    """The base of these sources. They have no `config.json` that matters, and copy no network."""

    def config(self) -> dict[str, Any]:
        """Return nothing: the files themselves tell what the model is."""
        return {}

    def num_parameters(self) -> int | None:
        """Return None: ONNX files do not tell without being read."""
        return None

    def scratch_bytes(self) -> int:
        """Return 0: the files lie in a cache, or are used in place."""
        return 0


@dataclass(frozen=True)
class PackagedSpeechSource(_SpeechSource):
    """A model in packages: downloaded once into the cache; the voices of an archive are unpacked for each build."""

    package: SpeechPackage

    def digest(self) -> str:
        """Return the pinned hash."""
        return f"sha256:{self.package.digest()}"

    def layout(self) -> SpeechLayout:
        """Return the layout with one of the voices."""
        voices = ["voices/af_heart.bin"] if self.package.voices else []
        return read_layout([self.package.path, *voices], "The package")

    def size_bytes(self) -> int:
        """Return the size of the network."""
        return self.package.network.size_bytes

    def scratch_bytes(self) -> int:
        """Return the size of the voices that are unpacked."""
        return self.package.voices.size_bytes if self.package.voices else 0

    def fetch(self, scratch: Path, progress: Progress) -> Checkpoint:
        """Download the packages unless they are in the cache. Raises SourceUnavailable, MissingDependency."""
        return Checkpoint(fetch(self.package, scratch, progress))


@dataclass(frozen=True)
class LocalSpeechSource(_SpeechSource):
    """A folder on this machine, in the layout of a repository of the hub."""

    path: Path

    def digest(self) -> str:
        """Return the hash over the names and contents of the networks and voices."""
        whole = hashlib.sha256()
        for name in self._files():
            whole.update(f"{name}\0{sha256(self.path / name)}\n".encode())
        return f"sha256:{whole.hexdigest()}"

    def layout(self) -> SpeechLayout:
        """Return the layout. Raises UnsupportedModel."""
        return read_layout(folder_names(self.path), str(self.path))

    def size_bytes(self) -> int:
        """Return the size of the networks and voices together."""
        return sum((self.path / name).stat().st_size for name in self._files())

    def fetch(self, scratch: Path, progress: Progress) -> Checkpoint:
        """Return the folder itself."""
        return Checkpoint(self.path)

    def _files(self) -> list[str]:
        layout = self.layout()
        return sorted({*layout.files("fp32"), *layout.files("int8")})


@dataclass(frozen=True)
class HubSpeechSource(_SpeechSource):
    """A repository on the Hugging Face hub (or the mirror that `HF_ENDPOINT` names)."""

    id: str
    revision: str | None = None

    def digest(self) -> str:
        """Return the id and the commit."""
        return f"hf:{self.id}@{self._commit_and_sizes[0]}"

    def layout(self) -> SpeechLayout:
        """Return the layout. Raises SourceUnavailable, UnsupportedModel."""
        return read_layout(self._commit_and_sizes[1], self.id)

    def size_bytes(self) -> int:
        """Return the size of the networks and voices together, as far as the hub tells."""
        sizes = self._commit_and_sizes[1]
        layout = self.layout()
        return sum(sizes[name] for name in {*layout.files("fp32"), *layout.files("int8")})

    def fetch(self, scratch: Path, progress: Progress) -> Checkpoint:
        """Download the networks and voices into the hub's own cache. Raises SourceUnavailable."""
        from huggingface_hub import snapshot_download

        progress.update(f"downloading {self.id}")
        layout = self.layout()
        wanted = sorted({*layout.files("fp32"), *layout.files("int8")})
        commit = self._commit_and_sizes[0]
        path = sources.call_hub(self.id, lambda: snapshot_download(self.id, revision=commit, allow_patterns=wanted))
        return Checkpoint(Path(path))

    @cached_property
    def _commit_and_sizes(self) -> tuple[str, dict[str, int]]:
        """The commit and the size of each file. They are requested once, so that the whole build uses one commit."""
        try:
            from huggingface_hub import HfApi
        except ModuleNotFoundError as error:
            raise MissingDependency(error.name) from error

        info = sources.call_hub(
            self.id, lambda: HfApi().model_info(self.id, revision=self.revision, timeout=20, files_metadata=True)
        )
        return str(info.sha), {file.rfilename: file.size or 0 for file in info.siblings or ()}


SpeechSource = PackagedSpeechSource | LocalSpeechSource | HubSpeechSource


def resolve(source: str, revision: str | None = None) -> SpeechSource:
    """Return the source that `packaged:NAME`, a folder or a hub id names. Raises RecipeError, SourceUnavailable."""
    kind, _, name = source.partition(":")
    if kind == "packaged":
        if name not in PACKAGED_SPEECH:
            raise RecipeError(f"There is no packaged voice {name!r}. Known: {', '.join(PACKAGED_SPEECH)}.")
        return PackagedSpeechSource(PACKAGED_SPEECH[name])
    path = Path(source).expanduser()
    if path.is_dir():
        return LocalSpeechSource(path.resolve())
    if sources.HUB_ID.fullmatch(source) and not path.exists():
        return HubSpeechSource(source, revision)
    raise SourceUnavailable(
        f"There is no folder {source!r}, and it is not a Hugging Face id either (owner/name, such as "
        "onnx-community/Kokoro-82M-v1.0-ONNX)."
    )


def folder_names(folder: Path) -> list[str]:
    """Return the paths of the files of a folder and of its folders `onnx` and `voices`."""
    folders = (folder, folder / "onnx", folder / "voices")
    return [str(path.relative_to(folder)) for each in folders for path in each.glob("*") if path.is_file()]
