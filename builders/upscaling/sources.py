"""Sources of upscaling networks: packages, a file or a folder on this machine, or a file on the Hugging Face hub."""

import re
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from builders import packaged_files, sources
from builders.checkpoint import Checkpoint, sha256
from builders.errors import MissingDependency, RecipeError, SourceUnavailable
from builders.progress import Progress
from builders.upscaling import weights
from builders.upscaling.packages import PACKAGED_UPSCALERS, UpscalingPackage

_HUB_FILE = re.compile(rf"({sources.HUB_ID.pattern})/([\w./-]+)")
"""A file of a repository of the hub: `owner/name/file.pth`."""


class _UpscalingSource:
    """The base of these sources. `fetch` returns a folder with one file of weights, and ncnn's second one."""

    def config(self) -> dict[str, Any]:
        """Return nothing: the weights themselves tell what the network is."""
        return {}

    def num_parameters(self) -> int | None:
        """Return None: the files do not tell without being read."""
        return None


@dataclass(frozen=True)
class PackagedUpscalingSource(_UpscalingSource):
    """A network in a package: downloaded once into the cache."""

    package: UpscalingPackage

    def digest(self) -> str:
        """Return the pinned hashes."""
        return f"sha256:{self.package.param.sha256},{self.package.numbers.sha256}"

    def scratch_bytes(self) -> int:
        """Return the size of the files, which are copied."""
        return self.package.param.size_bytes + self.package.numbers.size_bytes

    def fetch(self, scratch: Path, progress: Progress) -> Checkpoint:
        """Download the package unless its files are in the cache. Raises SourceUnavailable, MissingDependency."""
        param, numbers = packaged_files.fetch([self.package.param, self.package.numbers], progress)
        return _copy([param, numbers], scratch)


@dataclass(frozen=True)
class LocalUpscalingSource(_UpscalingSource):
    """A file of weights on this machine."""

    path: Path

    def digest(self) -> str:
        """Return the hash of the file, or of the two of ncnn."""
        return f"sha256:{','.join(sha256(path) for path in self._files())}"

    def scratch_bytes(self) -> int:
        """Return the size of the files, which are copied."""
        return sum(path.stat().st_size for path in self._files())

    def fetch(self, scratch: Path, progress: Progress) -> Checkpoint:
        """Return a folder with a copy of the file."""
        return _copy(self._files(), scratch)

    def _files(self) -> list[Path]:
        if self.path.suffix != ".param":
            return [self.path]
        numbers = self.path.with_suffix(".bin")
        if not numbers.is_file():
            raise SourceUnavailable(
                f"{self.path} is the graph of ncnn; its weights, {numbers.name}, are not beside it."
            )
        return [self.path, numbers]


@dataclass(frozen=True)
class HubUpscalingSource(_UpscalingSource):
    """A file of a repository on the Hugging Face hub (or the mirror that `HF_ENDPOINT` names)."""

    id: str
    file: str
    revision: str | None = None

    def digest(self) -> str:
        """Return the id, the commit and the file."""
        return f"hf:{self.id}@{self._commit}/{self.file}"

    def scratch_bytes(self) -> int:
        """Return what the largest published networks have."""
        return 70_000_000

    def fetch(self, scratch: Path, progress: Progress) -> Checkpoint:
        """Download the file into the hub's own cache. Raises SourceUnavailable."""
        from huggingface_hub import hf_hub_download

        progress.update(f"downloading {self.id}/{self.file}")
        commit = self._commit
        path = sources.call_hub(self.id, lambda: hf_hub_download(self.id, self.file, revision=commit))
        return _copy([Path(path)], scratch)

    @cached_property
    def _commit(self) -> str:
        try:
            from huggingface_hub import HfApi
        except ModuleNotFoundError as error:
            raise MissingDependency(error.name) from error

        info = sources.call_hub(self.id, lambda: HfApi().model_info(self.id, revision=self.revision, timeout=20))
        return str(info.sha)


UpscalingSource = PackagedUpscalingSource | LocalUpscalingSource | HubUpscalingSource


def resolve(source: str, revision: str | None = None) -> UpscalingSource:
    """Return the source that `packaged:NAME`, a file, a folder or a file of the hub names.

    Raises RecipeError, SourceUnavailable.
    """
    kind, _, name = source.partition(":")
    if kind == "packaged":
        if name not in PACKAGED_UPSCALERS:
            raise RecipeError(f"There is no packaged upscaler {name!r}. Known: {', '.join(PACKAGED_UPSCALERS)}.")
        return PackagedUpscalingSource(PACKAGED_UPSCALERS[name])
    path = Path(source).expanduser()
    if path.is_dir():
        path = weights.find(path)
    if path.is_file():
        if path.suffix not in weights.SUFFIXES:
            raise SourceUnavailable(f"{path} is no file of weights; read are {', '.join(weights.SUFFIXES)}.")
        return LocalUpscalingSource(path.resolve())
    if (match := _HUB_FILE.fullmatch(source)) and Path(source).suffix in weights.SUFFIXES[:3]:
        return HubUpscalingSource(match[1], match[2], revision)
    raise SourceUnavailable(
        f"There is no file or folder {source!r}, and it is not a file on the Hugging Face hub either "
        "(owner/name/file.pth)."
    )


def _copy(files: list[Path], scratch: Path) -> Checkpoint:
    """Copy files into a folder of their own in `scratch`."""
    folder = scratch / "checkpoint"
    folder.mkdir(parents=True)
    for path in files:
        shutil.copyfile(path, folder / path.name)
    return Checkpoint(folder)
