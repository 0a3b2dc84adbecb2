"""Sources of pipelines: packaged weights, a folder in diffusers' layout, or the Hugging Face hub."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

from builders import sources
from builders.checkpoint import Checkpoint, read_json, sha256
from builders.diffusion.pipeline import DENOISERS, PIPELINE_FAMILIES, check_index, component_class
from builders.errors import MissingDependency, RecipeError, SourceUnavailable
from builders.progress import Progress

PACKAGED_PIPELINES = {"shapes": Path(__file__).parents[1] / "shapes" / "weights"}
"""Pipelines whose weights are package data of Tritonic, by name."""

Index = Mapping[str, Any]
"""The contents of a `model_index.json`."""

_INDEX_FILE = "model_index.json"

CONFIG_FILES = ("*.json", "*.txt", "*.model")
WEIGHT_FILES = "*.safetensors"


def _image_folders(index: Index) -> Iterable[str]:
    name = index.get("_class_name")
    yield DENOISERS[PIPELINE_FAMILIES[name]][0] if name in PIPELINE_FAMILIES else "unet"
    yield from ("vae", "scheduler")
    yield from (f"{kind}{number}" for kind in ("text_encoder", "tokenizer") for number in ("", "_2", "_3"))


@dataclass(frozen=True, slots=True)
class PipelineKind:
    """The rules by which a family reads a folder in diffusers' layout."""

    check: Callable[[dict[str, Any]], object]
    """Raises UnsupportedModel for a `model_index.json` that the family does not build."""
    folders: Callable[[Index], Iterable[str]]
    """Returns the folders that decide what is built."""
    packaged: Mapping[str, Path]
    """Folders by the name after `packaged:`."""
    example: str
    """A Hugging Face id, for errors."""


IMAGES = PipelineKind(check_index, _image_folders, PACKAGED_PIPELINES, "stabilityai/sdxl-turbo")


@dataclass(frozen=True, slots=True)
class LocalPipelineSource:
    """A folder in diffusers' layout on this machine."""

    path: Path
    kind: PipelineKind = IMAGES

    def digest(self) -> str:
        """Return the hash over the names and contents of all files that decide what is built."""
        whole = hashlib.sha256()
        for path in self._files():
            whole.update(f"{path.relative_to(self.path)}\0{sha256(path)}\n".encode())
        return f"sha256:{whole.hexdigest()}"

    def config(self) -> dict[str, Any]:
        """Read `model_index.json`. Raises SourceUnavailable, UnsupportedModel."""
        return _index(self.path, self.kind)

    def num_parameters(self) -> int:
        """Count the parameters in the headers of the weight files."""
        files = [path for path in self._files() if fnmatch(path.name, WEIGHT_FILES)]
        return sum(Checkpoint(folder).num_parameters() for folder in {path.parent for path in files})

    def scratch_bytes(self) -> int:
        """Return 0: the folder is used in place."""
        return 0

    def fetch(self, scratch: Path, progress: Progress) -> Checkpoint:
        """Return the folder itself."""
        return Checkpoint(self.path)

    def _files(self) -> list[Path]:
        names = [str(path.relative_to(self.path)) for path in self.path.rglob("*") if path.is_file()]
        return [self.path / name for name in sorted(needed_files(self.config(), names, self.kind))]


@dataclass(frozen=True)
class HubPipelineSource:
    """A pipeline on the Hugging Face hub (or the mirror that `HF_ENDPOINT` names)."""

    id: str
    revision: str | None = None
    kind: PipelineKind = IMAGES

    def digest(self) -> str:
        """Return the id and the commit."""
        return f"hf:{self.id}@{self._commit_and_files[0]}"

    def config(self) -> dict[str, Any]:
        """Download and read `model_index.json`. Raises SourceUnavailable, UnsupportedModel."""
        from huggingface_hub import hf_hub_download

        path = sources.call_hub(
            self.id, lambda: hf_hub_download(self.id, _INDEX_FILE, revision=self._commit_and_files[0])
        )
        return _index(Path(path).parent, self.kind)

    def num_parameters(self) -> int | None:
        """Count the parameters in the headers of the weight files, which the hub serves separately; None on failure."""
        from huggingface_hub import HfApi

        commit, files = self._commit_and_files
        count = 0
        for name in [name for name in files if fnmatch(name, WEIGHT_FILES)]:
            try:
                known = HfApi().parse_safetensors_file_metadata(self.id, name, revision=commit)
            except Exception:  # no network, or a mirror without headers: the count is only advice
                return None
            count += sum(known.parameter_count.values())
        return count

    def scratch_bytes(self) -> int:
        """Return 0: downloads go into the hub's own cache."""
        return 0

    def fetch(self, scratch: Path, progress: Progress) -> Checkpoint:
        """Download the needed files into the hub's own cache. Raises SourceUnavailable."""
        from huggingface_hub import snapshot_download

        progress.update(f"downloading {self.id}")
        commit, files = self._commit_and_files
        path = sources.call_hub(self.id, lambda: snapshot_download(self.id, revision=commit, allow_patterns=files))
        return Checkpoint(Path(path))

    @cached_property
    def _commit_and_files(self) -> tuple[str, list[str]]:
        """The commit and the needed files. They are requested once, so that the whole build uses one commit."""
        try:
            from huggingface_hub import HfApi, hf_hub_download, snapshot_download
        except ModuleNotFoundError as error:
            raise MissingDependency(error.name) from error

        try:
            info = sources.call_hub(
                self.id,
                lambda: HfApi().model_info(self.id, revision=self.revision, timeout=20),
            )
        except SourceUnavailable:
            try:  # Without a network, an earlier download is used.
                folder = Path(snapshot_download(self.id, revision=self.revision, local_files_only=True))
            except Exception:
                folder = None
            if folder is None:
                raise
            return folder.name, _names(folder, self.kind)
        commit = str(info.sha)
        path = sources.call_hub(self.id, lambda: hf_hub_download(self.id, _INDEX_FILE, revision=commit))
        index = _index(Path(path).parent, self.kind)
        return commit, needed_files(index, [file.rfilename for file in info.siblings or ()], self.kind)


def resolve(
    source: str, revision: str | None = None, pipelines: PipelineKind = IMAGES
) -> LocalPipelineSource | HubPipelineSource:
    """Return the source that `packaged:NAME`, a folder or a hub id names. Raises RecipeError, SourceUnavailable."""
    kind, _, name = source.partition(":")
    if kind == "packaged":
        if name not in pipelines.packaged:
            raise RecipeError(f"There is no packaged pipeline {name!r}. Known: {', '.join(pipelines.packaged)}.")
        folder = pipelines.packaged[name]
        if not (folder / _INDEX_FILE).is_file():
            raise SourceUnavailable(f"The weights of {name!r} are not in {folder}; `tritonic train {name}` makes them.")
        return LocalPipelineSource(folder, pipelines)
    path = Path(source).expanduser()
    if path.is_dir():
        return LocalPipelineSource(path.resolve(), pipelines)
    if path.exists():
        raise SourceUnavailable(f"{source} is a file; a folder in diffusers' layout is wanted.")
    if sources.HUB_ID.fullmatch(source):
        return HubPipelineSource(source, revision, pipelines)
    raise SourceUnavailable(
        f"There is no folder {source!r}, and it is not a Hugging Face id either (owner/name, such as "
        f"{pipelines.example})."
    )


def needed_files(index: Index, names: list[str], kind: PipelineKind = IMAGES) -> list[str]:
    """Return those of a pipeline's files that decide what is built.

    Repositories hold the same weights several times. Other formats are left out, and so are variants (`.fp16.`) if a
    component has plain weights. Safety checkers are left out: they are not built.
    """
    needed = [_INDEX_FILE]
    for folder in sorted(folder for folder in set(kind.folders(index)) if component_class(index, folder) is not None):
        inside = [name for name in names if name.startswith(f"{folder}/") and name.count("/") == 1]
        weights = [name for name in inside if fnmatch(name, WEIGHT_FILES)]
        plain = [name for name in weights if Path(name).name.count(".") == 1]
        variants = sorted({Path(name).name.split(".")[1].split("-")[0] for name in set(weights) - set(plain)})
        needed += plain or [name for name in weights if f".{variants[0]}" in name]
        needed += [name for name in inside if any(fnmatch(name, pattern) for pattern in CONFIG_FILES)]
    return [name for name in needed if name in names]


def _names(folder: Path, kind: PipelineKind) -> list[str]:
    found = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    return needed_files(_index(folder, kind), found, kind)


def _index(folder: Path, kind: PipelineKind) -> dict[str, Any]:
    path = folder / _INDEX_FILE
    if not path.is_file():
        raise SourceUnavailable(f"{folder} is not a pipeline in diffusers' layout: it has no {path.name}.")
    index = read_json(path, needed=True)
    kind.check(index)
    return index
