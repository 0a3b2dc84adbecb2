"""Read a checkpoint folder in Hugging Face's layout, without torch or transformers."""

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
"""Glob patterns of the files that decide what is built, including the module folders of sentence-transformers."""

TOKENIZER_FILES = (("tokenizer.json",), ("*.model",), ("tekken.json",), ("vocab.json", "merges.txt"))
"""Groups of files. One group is enough for a tokenizer: fast, sentencepiece, Mistral's, or byte-level BPE."""

# Some checkpoints do not declare all their turn markers as special tokens; this finds them by their form.
_TURN_MARKER = re.compile(r"<\|[^<>\s]+>|<[^<>\s]+\|>|<｜[^<>\s]+｜>|<(start|end)_of_\w+>|\[/?[A-Z][A-Z0-9_]+\]")  # noqa: RUF001 - DeepSeek's
FROM_PRETRAINED_OPTIONS: dict[str, Any] = {
    "local_files_only": True,
    "use_safetensors": True,
    "trust_remote_code": False,
}
"""Options of every `from_pretrained` call of transformers and diffusers.

Nothing is downloaded. Weights are safetensors, which cannot contain code. Code in the checkpoint's folder is not run.
"""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder in Hugging Face's layout."""

    folder: Path

    def config(self) -> dict[str, Any]:
        """Read `config.json`. Raises SourceUnavailable."""
        return read_json(self.folder / "config.json", needed=True)

    def chat_template(self) -> str | None:
        """Return the checkpoint's own chat template, byte for byte; None for a base model.

        The order is that of transformers: `chat_template.jinja`, `chat_template.json` (older vision-language models),
        then `tokenizer_config.json`. If a checkpoint has several templates, `default` is taken.
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
        """Return the special tokens that a chat template may use: `{"bos_token": "<s>", …}`."""
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
        """Return the added tokens that are not words: those declared special, and other turn markers."""
        tokens = read_json(self.folder / "tokenizer.json").get("added_tokens", [])
        return [token["content"] for token in tokens if token["special"] or _TURN_MARKER.fullmatch(token["content"])]

    def end_token_ids(self) -> list[int]:
        """Return every token id that ends an answer, from the generation config, the config and the tokenizer."""
        ids: list[int] = []
        for file in ("generation_config.json", "config.json"):
            ids += _ids(nested_text_config(read_json(self.folder / file)).get("eos_token_id"))
        eos = self.special_tokens().get("eos_token")
        for token in read_json(self.folder / "tokenizer.json").get("added_tokens", []):
            if token["content"] == eos:
                ids.append(token["id"])
        return list(dict.fromkeys(ids))

    def sampling_defaults(self) -> dict[str, float]:
        """Return the parameters that `generation_config.json` recommends; empty unless it enables sampling."""
        config = read_json(self.folder / "generation_config.json")
        if config.get("do_sample") is not True:
            return {}
        names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
        return {name: config[name] for name in names if isinstance(config.get(name), int | float)}

    def context_length(self) -> int:
        """Return the context length of the training, in tokens. Raises SourceUnavailable if the config does not say."""
        length = nested_text_config(self.config()).get("max_position_embeddings")
        if not isinstance(length, int):
            raise SourceUnavailable(f"{self.folder}/config.json names no max_position_embeddings.")
        return length

    def weight_files(self) -> list[Path]:
        """Return the safetensors files, sorted by name. Raises SourceUnavailable if there are none."""
        found = sorted(self.folder.glob("*.safetensors"))
        if not found:
            raise SourceUnavailable(
                f"{self.folder} holds no safetensors weights. "
                "Weights in PyTorch's pickle format are not read: loading them can run code."
            )
        return found

    def check_tokenizer(self) -> None:
        """Check that the folder has a tokenizer. Raises SourceUnavailable, which names the missing files."""
        if not any(all(any(self.folder.glob(name)) for name in files) for files in TOKENIZER_FILES):
            raise SourceUnavailable(
                f"{self.folder} has no tokenizer: it lacks tokenizer.json, and there is neither tokenizer.model nor "
                "vocab.json with merges.txt, from which one could be made. Copy it from the source of the weights."
            )

    def num_parameters(self) -> int:
        """Count the parameters in the headers of the safetensors files. Raises SourceUnavailable."""
        return sum(math.prod(shape) for path in self.weight_files() for shape in _shapes(path))

    def digest(self) -> str:
        """Return `sha256:` and the hash over the names and contents of all files that decide what is built."""
        files = sorted({path for pattern in CHECKPOINT_FILES for path in self.folder.glob(pattern) if path.is_file()})
        whole = hashlib.sha256()
        for path in files:
            whole.update(f"{path.relative_to(self.folder)}\0{sha256(path)}\n".encode())
        return f"sha256:{whole.hexdigest()}"


def nested_text_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return the config of the text model, which multimodal checkpoints nest, merged over the outer one."""
    part = config.get("text_config")
    return config | part if isinstance(part, dict) else config


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path, *, needed: bool = False) -> dict[str, Any]:
    """Read a JSON object; an absent file gives an empty one unless `needed`. Raises SourceUnavailable."""
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
    """Read the shape of each tensor in a safetensors header (https://github.com/huggingface/safetensors#format)."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(path.stat().st_size, 100_000_000):
                raise ValueError("the header is longer than the file")
            header = json.loads(file.read(length))
        return [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
    except (OSError, ValueError, struct.error, KeyError, TypeError) as error:
        raise SourceUnavailable(f"{path} is not a readable safetensors file: {error}") from error
