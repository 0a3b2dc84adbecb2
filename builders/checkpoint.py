"""What a folder in Hugging Face's layout says about its model, read without torch or transformers."""

import hashlib
import json
import math
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from builders.errors import SourceUnavailable

CHECKPOINT_FILES = (
    "*.json",
    "*.safetensors",
    "*.jinja",
    "*.model",
    "*.txt",
    "[0-9]_*/config.json",
    "[0-9]_*/*.safetensors",
)
"""The files of a checkpoint that decide what is built, those of the modules of sentence-transformers too."""

TOKENIZER_FILES = (("tokenizer.json",), ("*.model",), ("tekken.json",), ("vocab.json", "merges.txt"))
"""Files of which each group alone makes a tokenizer: the fast one's, sentencepiece's, Mistral's, byte-level BPE's."""

# Some checkpoints have marks of turns that they do not call special.
_MARK = re.compile(r"<\|[^<>\s]+>|<[^<>\s]+\|>|<｜[^<>\s]+｜>|<(start|end)_of_\w+>|\[/?[A-Z][A-Z0-9_]+\]")  # noqa: RUF001 - DeepSeek's
FROM_PRETRAINED_OPTIONS: dict[str, Any] = {
    "local_files_only": True,
    "use_safetensors": True,
    "trust_remote_code": False,
}
"""What transformers and diffusers are told of every checkpoint: nothing is fetched, weights are safetensors, which can
hold no code, and code that lies beside them is not run and not asked for."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder in Hugging Face's layout."""

    folder: Path

    def config(self) -> dict[str, Any]:
        """Read `config.json`. Raises SourceUnavailable."""
        return read_json(self.folder / "config.json", needed=True)

    def chat_template(self) -> str | None:
        """Give the checkpoint's own chat template, byte for byte; None for a base model.

        transformers' order: `chat_template.jinja`, `chat_template.json` (older checkpoints that see), then the one in
        `tokenizer_config.json`; of several, `default`.
        """
        own = self.folder / "chat_template.jinja"
        if own.is_file():
            return own.read_bytes().decode("utf-8")
        template = read_json(self.folder / "chat_template.json").get("chat_template")
        if template is None:
            template = read_json(self.folder / "tokenizer_config.json").get("chat_template")
        if isinstance(template, list):
            by_name = {entry["name"]: entry["template"] for entry in template}
            template = by_name.get("default")
        return template if isinstance(template, str) else None

    def special_tokens(self) -> dict[str, str]:
        """Name the special tokens that a template may use: `{"bos_token": "<s>", …}`."""
        config = read_json(self.folder / "special_tokens_map.json") | read_json(self.folder / "tokenizer_config.json")
        found = {}
        for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
            token = config.get(name)
            if isinstance(token, dict):
                token = token.get("content")
            if isinstance(token, str):
                found[name] = token
        return found

    def control_tokens(self) -> list[str]:
        """List the tokens of the tokenizer that are no words: those it calls special, and other marks of turns."""
        tokens = read_json(self.folder / "tokenizer.json").get("added_tokens", [])
        return [token["content"] for token in tokens if token["special"] or _MARK.fullmatch(token["content"])]

    def end_token_ids(self) -> list[int]:
        """List every token id that ends an answer: of the generation config, the config and the tokenizer."""
        ids: list[int] = []
        for file in ("generation_config.json", "config.json"):
            ids += _ids(nested_text_config(read_json(self.folder / file)).get("eos_token_id"))
        eos = self.special_tokens().get("eos_token")
        for token in read_json(self.folder / "tokenizer.json").get("added_tokens", []):
            if token["content"] == eos:
                ids.append(token["id"])
        return list(dict.fromkeys(ids))

    def sampling_defaults(self) -> dict[str, float]:
        """Give what `generation_config.json` recommends; empty where it does not ask for sampling."""
        config = read_json(self.folder / "generation_config.json")
        if config.get("do_sample") is not True:
            return {}
        names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
        return {name: config[name] for name in names if isinstance(config.get(name), int | float)}

    def context_length(self) -> int:
        """Give the tokens that the model was trained for. Raises SourceUnavailable when the config does not say."""
        length = nested_text_config(self.config()).get("max_position_embeddings")
        if not isinstance(length, int):
            raise SourceUnavailable(f"{self.folder}/config.json names no max_position_embeddings.")
        return length

    def weight_files(self) -> list[Path]:
        """List the safetensors files. Raises SourceUnavailable when there are none."""
        found = sorted(self.folder.glob("*.safetensors"))
        if not found:
            raise SourceUnavailable(
                f"{self.folder} holds no safetensors weights. "
                "Weights in PyTorch's pickle format are not read: loading them can run code."
            )
        return found

    def check_tokenizer(self) -> None:
        """Refuse a folder without a tokenizer. Raises SourceUnavailable, which names what is missing."""
        if not any(all(any(self.folder.glob(name)) for name in files) for files in TOKENIZER_FILES):
            raise SourceUnavailable(
                f"{self.folder} has no tokenizer: it lacks tokenizer.json, and there is neither tokenizer.model nor "
                "vocab.json with merges.txt, of which one could be made. Copy it from where the weights came from."
            )

    def num_parameters(self) -> int:
        """Count the parameters from the headers of the safetensors files."""
        return sum(math.prod(shape) for path in self.weight_files() for shape in _shapes(path))

    def digest(self) -> str:
        """Hash the contents of every file that decides what is built."""
        files = sorted({path for pattern in CHECKPOINT_FILES for path in self.folder.glob(pattern) if path.is_file()})
        whole = hashlib.sha256()
        for path in files:
            whole.update(f"{path.relative_to(self.folder)}\0{sha256(path)}\n".encode())
        return f"sha256:{whole.hexdigest()}"


def nested_text_config(config: dict[str, Any]) -> dict[str, Any]:
    """Give the part of a config that describes the text model: multimodal checkpoints nest it."""
    part = config.get("text_config")
    return config | part if isinstance(part, dict) else config


def sha256(path: Path) -> str:
    """Hash a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path, *, needed: bool = False) -> dict[str, Any]:
    """Read a JSON object; an absent file is an empty one unless it is needed. Raises SourceUnavailable."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        if needed:
            raise SourceUnavailable(f"{path.parent} is not a Hugging Face checkpoint: it has no {path.name}.") from None
        return {}
    except (OSError, ValueError) as error:
        raise SourceUnavailable(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise SourceUnavailable(f"{path} is not a JSON object.")
    return value


def _ids(value: object) -> list[int]:
    if isinstance(value, list):
        return [item for item in value if isinstance(item, int)]
    return [value] if isinstance(value, int) else []


def _shapes(path: Path) -> Iterable[list[int]]:
    """Read the shapes from the header of a safetensors file (https://github.com/huggingface/safetensors#format)."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(path.stat().st_size, 100_000_000):
                raise ValueError("the header is longer than the file")
            header = json.loads(file.read(length))
        return [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
    except (OSError, ValueError, struct.error, KeyError, TypeError) as error:
        raise SourceUnavailable(f"{path} is not a readable safetensors file: {error}") from error
