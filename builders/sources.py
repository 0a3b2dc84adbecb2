"""Sources of weights: a Python package, a local folder, or the Hugging Face hub."""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

from builders.checkpoint import Checkpoint
from builders.errors import MissingDependency, RecipeError, SourceUnavailable
from builders.packaged_checkpoint import PACKAGED_CHECKPOINTS, PackagedCheckpointSource
from builders.packaged_gguf import PACKAGED_GGUFS, PackagedGGUFSource
from builders.packaged_whisper import PACKAGED_WHISPERS, PackagedWhisperSource
from builders.progress import Progress

T = TypeVar("T")

PACKAGED_FOLDERS = {"shapes-captioner": Path(__file__).parent / "shapes_captioner" / "weights"}
"""Checkpoints that are package data of Tritonic, by name."""

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
HUB_IGNORED_FILES = ["[!0-9]*/*", "*.fp32-*.safetensors"]
"""Other formats of the same weights: in folders, except the numbered modules of sentence-transformers, and in files of
a second precision."""


class Source(Protocol):
    """Weights that a build can fetch."""

    def digest(self) -> str:
        """Return a string that identifies the contents, without fetching the weights. Raises SourceUnavailable."""

    def config(self) -> dict[str, Any]:
        """Return `config.json`, without fetching the weights. Raises SourceUnavailable."""

    def num_parameters(self) -> int | None:
        """Return the number of parameters, without fetching the weights; None if it is unknown."""

    def scratch_bytes(self) -> int:
        """Return the bytes that `fetch` writes to its scratch folder."""

    def fetch(self, scratch: Path, progress: Progress) -> Checkpoint:
        """Return the weights as a folder on this machine. Raises SourceUnavailable, MissingDependency.

        `scratch` is a folder that is deleted when the build ends.
        """


@dataclass(frozen=True, slots=True)
class LocalSource:
    """A folder in Hugging Face's layout on this machine."""

    path: Path

    def digest(self) -> str:
        """Return the hash of the folder's contents."""
        return Checkpoint(self.path).digest()

    def config(self) -> dict[str, Any]:
        """Read the folder's `config.json`."""
        return Checkpoint(self.path).config()

    def num_parameters(self) -> int | None:
        """Count the parameters in the headers of the weight files."""
        return Checkpoint(self.path).num_parameters()

    def scratch_bytes(self) -> int:
        """Return 0: the folder is used in place."""
        return 0

    def fetch(self, scratch: Path, progress: Progress) -> Checkpoint:
        """Return the folder itself."""
        return Checkpoint(self.path)


@dataclass(frozen=True)
class HubSource:
    """A repository on the Hugging Face hub (or the mirror that `HF_ENDPOINT` names)."""

    id: str
    revision: str | None = None

    def digest(self) -> str:
        """Return the id and the commit."""
        return f"hf:{self.id}@{self.commit}"

    def config(self) -> dict[str, Any]:
        """Download and read `config.json`."""
        from huggingface_hub import hf_hub_download

        path = call_hub(self.id, lambda: hf_hub_download(self.id, "config.json", revision=self.commit))
        return Checkpoint(Path(path).parent).config()

    def num_parameters(self) -> int | None:
        """Return the hub's count, which most checkpoints have."""
        return self._commit_and_size[1]

    def scratch_bytes(self) -> int:
        """Return 0: downloads go into the hub's own cache."""
        return 0

    def fetch(self, scratch: Path, progress: Progress) -> Checkpoint:
        """Download weights, tokenizer and configs into the hub's own cache."""
        progress.update(f"downloading {self.id}")
        return self._download(HUB_FILES)

    def fetch_configuration(self, progress: Progress) -> Checkpoint:
        """Download tokenizer and configs alone, into the hub's own cache. Raises SourceUnavailable."""
        progress.update(f"downloading the configuration of {self.id}")
        return self._download([pattern for pattern in HUB_FILES if pattern != "*.safetensors"])

    def _download(self, patterns: list[str]) -> Checkpoint:
        from huggingface_hub import snapshot_download

        path = call_hub(
            self.id,
            lambda: snapshot_download(
                self.id, revision=self.commit, allow_patterns=patterns, ignore_patterns=HUB_IGNORED_FILES
            ),
        )
        return Checkpoint(Path(path))

    @property
    def commit(self) -> str:
        """The commit that `revision` stands for. Raises SourceUnavailable."""
        return self._commit_and_size[0]

    @cached_property
    def _commit_and_size(self) -> tuple[str, int | None]:
        """The commit and its number of parameters. They are requested once, so that the whole build uses one commit."""
        try:
            from huggingface_hub import HfApi, snapshot_download
        except ModuleNotFoundError as error:
            raise MissingDependency(error.name) from error

        try:
            info = call_hub(self.id, lambda: HfApi().model_info(self.id, revision=self.revision, timeout=20))
            return str(info.sha), info.safetensors.total if info.safetensors else None
        except SourceUnavailable:
            with suppress(Exception):  # Without a network, an earlier download is used.
                folder = Path(snapshot_download(self.id, revision=self.revision, local_files_only=True))
                return folder.name, Checkpoint(folder).num_parameters()
            raise


def resolve(source: str, revision: str | None = None) -> Source:
    """Return the source that `packaged:NAME`, a folder or a hub id names. Raises RecipeError, SourceUnavailable."""
    kind, _, rest = source.partition(":")
    if kind == "packaged":
        if rest in PACKAGED_FOLDERS:
            return _packaged_folder(rest)
        if rest in PACKAGED_CHECKPOINTS:
            return PackagedCheckpointSource(PACKAGED_CHECKPOINTS[rest])
        if rest in PACKAGED_WHISPERS:
            return PackagedWhisperSource(PACKAGED_WHISPERS[rest])
        if rest not in PACKAGED_GGUFS:
            known = ", ".join(sorted([*PACKAGED_GGUFS, *PACKAGED_CHECKPOINTS, *PACKAGED_FOLDERS, *PACKAGED_WHISPERS]))
            raise RecipeError(f"There is no packaged model {rest!r}. Known: {known}.")
        return PackagedGGUFSource(PACKAGED_GGUFS[rest])
    path = Path(source).expanduser()
    if path.is_dir():
        return LocalSource(path.resolve())
    if path.exists():
        raise SourceUnavailable(f"{source} is a file; a folder in Hugging Face's layout is wanted.")
    if HUB_ID.fullmatch(source):
        return HubSource(source, revision)
    raise SourceUnavailable(
        f"There is no folder {source!r}, and it is not a Hugging Face id either (owner/name, such as "
        "Qwen/Qwen2.5-0.5B-Instruct)."
    )


def _packaged_folder(name: str) -> LocalSource:
    folder = PACKAGED_FOLDERS[name]
    if not (folder / "config.json").is_file():
        raise SourceUnavailable(
            f"The weights of {name} are not part of this installation. In a checkout of the project, "
            f"`tritonic train {name}` makes them."
        )
    return LocalSource(folder)


def call_hub(id: str, call: Callable[[], T]) -> T:
    """Call the hub, and turn its errors into SourceUnavailable with a message for the user."""
    from huggingface_hub import errors

    # The hub's client raises the errors of its HTTP library, which depends on its version.
    no_connection: type[Exception] = getattr(errors, "HTTPError", OSError)
    try:
        return call()
    except errors.GatedRepoError:
        raise SourceUnavailable(
            f"{id} is gated: accept its terms on its page, then set HF_TOKEN to a token of that account."
        ) from None
    except errors.RevisionNotFoundError:
        raise SourceUnavailable(f"{id} has no such revision.") from None
    except errors.RepositoryNotFoundError:
        raise SourceUnavailable(
            f"There is no {id} on the Hugging Face hub, or it is private: set HF_TOKEN to a token that may read it."
        ) from None
    except errors.RemoteEntryNotFoundError as error:
        raise SourceUnavailable(f"{id} is not a checkpoint that can be built: {_first_line(error)}.") from None
    except (no_connection, errors.LocalEntryNotFoundError, OSError) as error:
        raise SourceUnavailable(
            f"{id} could not be fetched from the Hugging Face hub: {_first_line(error)}. Without a network, download "
            "it elsewhere and give the folder instead: --source /path/to/folder. Behind a mirror, set HF_ENDPOINT."
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
