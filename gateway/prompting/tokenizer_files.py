"""Reads the chat template and the special tokens from a checkpoint's `tokenizer_config.json` and its sibling files."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Tokenizers that put `bos_token` before a text only where `add_bos_token` is true.
_NO_BOS_TOKENIZERS = frozenset(
    name + fast
    for name in ("GPT2Tokenizer", "Qwen2Tokenizer", "CodeGenTokenizer", "GPTNeoXTokenizer", "BloomTokenizer")
    for fast in ("", "Fast")
)


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """The chat template, the special tokens that it uses by name, and the texts of all special tokens.

    `adds_bos_token` tells whether the tokenizer puts `bos_token` before a text; None where the files do not tell.
    """

    chat_template: str | None
    special_tokens: dict[str, str] = field(default_factory=dict)
    control_tokens: list[str] = field(default_factory=list)
    adds_bos_token: bool | None = None


def read(path: Path) -> TokenizerFiles:
    """Read `tokenizer_config.json` as transformers stores it. Raises `OSError` and `ValueError`.

    The chat template is `chat_template.jinja` next to it, if there is one, or else the field `chat_template`: a text,
    or a list of named texts, of which `default` is used.
    """
    config = _object(path)
    template = config.get("chat_template")
    if isinstance(template, list):
        try:
            template = {entry["name"]: entry["template"] for entry in template}.get("default")
        except (KeyError, TypeError):
            raise ValueError(f"{path} has a chat_template that is neither text nor texts with names") from None
    template_file = path.parent / "chat_template.jinja"
    if template_file.is_file():
        template = template_file.read_text(encoding="utf-8")
    if template is not None and not isinstance(template, str):
        raise ValueError(f"{path} has a chat_template that is not text")
    tokens = {}
    for name, token in config.items():
        content = token.get("content") if isinstance(token, dict) else token
        if name.endswith("_token") and isinstance(content, str):
            tokens[name] = content
    added = config.get("added_tokens_decoder")
    entries = [entry for entry in added.values() if isinstance(entry, dict)] if isinstance(added, dict) else []
    special = [entry["content"] for entry in entries if entry.get("special") and isinstance(entry.get("content"), str)]
    bos = tokens.get("bos_token")
    return TokenizerFiles(template, tokens, special, _adds_bos(config, path.parent / "tokenizer.json", bos))


def _adds_bos(config: dict[str, Any], tokenizer: Path, bos: str | None) -> bool | None:
    if bos is None:
        return False
    if isinstance(setting := config.get("add_bos_token"), bool):
        return setting
    if tokenizer.is_file():
        try:
            return bos in _leading_special_tokens(_object(tokenizer).get("post_processor"))
        except (AttributeError, IndexError, KeyError, TypeError):
            raise ValueError(f"{tokenizer} has a post_processor that tokenizers cannot read") from None
    return False if config.get("tokenizer_class") in _NO_BOS_TOKENIZERS else None


def _leading_special_tokens(processor: Any) -> list[str]:
    """Return the special tokens that a post-processor of `tokenizer.json` puts before a text."""
    if not isinstance(processor, dict):
        return []
    match processor.get("type"):
        case "Sequence":
            parts = processor.get("processors")
            return [
                token for part in (parts if isinstance(parts, list) else ()) for token in _leading_special_tokens(part)
            ]
        case "TemplateProcessing":
            found = []
            for piece in processor.get("single") or ():
                if "SpecialToken" not in piece:
                    break
                found.append(str(piece["SpecialToken"].get("id")))
            return found
        case "BertProcessing" | "RobertaProcessing":
            return [str(processor["cls"][0])]
    return []


def _object(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ValueError(f"{path} is not a JSON object")
    return document
