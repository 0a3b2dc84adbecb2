"""The files of a checkpoint in a model's folder: the tokenizer, the configuration, and whole checkpoints."""

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from builders.checkpoint import Checkpoint, read_json
from builders.errors import SourceUnavailable

COPIED_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "config.json",
)
"""Files copied from the checkpoint unchanged; the exporter writes its own variants of some."""

ENGINE_FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")
"""Glob patterns of the files of a checkpoint that an engine reads."""

TOKENIZER_FILES = (
    "*token*.json",
    "vocab.*",
    "merges.txt",
    "chat_template.*",
    "*.model",
    "generation_config.json",
    "*processor_config.json",
)
"""Glob patterns of the files that belong to no weights, which an exporter of weights leaves out."""


@dataclass(frozen=True, slots=True)
class PlacedFiles:
    """The files that `place_checkpoint` put into a folder."""

    files: int
    bytes: int
    linked: bool
    """False if at least one file was copied."""


def write_tokenizer_files(checkpoint: Checkpoint, folder: Path) -> None:
    """Copy the checkpoint's tokenizer into `folder`, and write the ids of all tokens that end an answer.

    Raises SourceUnavailable.
    """
    for name in COPIED_FILES:
        if (checkpoint.folder / name).is_file():
            shutil.copyfile(checkpoint.folder / name, folder / name)
    if not (folder / "tokenizer.json").is_file():
        raise SourceUnavailable("The checkpoint has no tokenizer.json, and its other files are not enough to make one.")
    ends = checkpoint.end_token_ids()
    if not ends:
        raise SourceUnavailable("The checkpoint names no end-of-sequence token: its answers would never end.")
    generation = read_json(checkpoint.folder / "generation_config.json") | {"eos_token_id": ends}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n", encoding="utf-8")


def place_checkpoint(source: Path, folder: Path, patterns: Iterable[str] = ENGINE_FILES) -> PlacedFiles:
    """Put the files of a checkpoint into `folder`, as hard links where the filesystem allows them, else as copies.

    Files that `folder` has already stay as they are. Raises OSError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = sorted({path for pattern in patterns for path in source.glob(pattern) if path.is_file()})
    linked, size = True, 0
    for path in files:
        target = folder / path.name
        if target.exists():
            continue
        linked &= _link_or_copy(path.resolve(), target)  # files of the hub's cache are symbolic links
        size += target.stat().st_size
    return PlacedFiles(len(files), size, linked)


def check_weights(checkpoint: Checkpoint) -> int:
    """Return the number of parameters in the weight files. Raises SourceUnavailable if one is missing or cut off."""
    listed = read_json(checkpoint.folder / "model.safetensors.index.json").get("weight_map", {})
    missing = sorted({str(name) for name in listed.values()} - {path.name for path in checkpoint.weight_files()})
    if missing:
        raise SourceUnavailable(f"{checkpoint.folder} lacks weight files that its index names: {', '.join(missing)}.")
    return checkpoint.num_parameters()


def _link_or_copy(source: Path, target: Path) -> bool:
    """Make `target` a hard link of `source`; return False if it had to be a copy."""
    try:
        os.link(source, target)
    except OSError:  # another filesystem, one without links, or a file of another owner
        shutil.copyfile(source, target)
        return False
    return True
