"""Reading of the configuration files in a model's folder."""

import json
from pathlib import Path
from typing import Any


def read_json_object(path: Path, origin: str = "") -> dict[str, Any]:
    """Read a JSON object. Raises `FileNotFoundError` or `ValueError`, naming the file.

    `origin` tells where a missing file comes from: "the builder writes it".
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing{f': {origin}' if origin else ''}.")
    try:
        document = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}.") from error
    if not isinstance(document, dict):
        raise ValueError(f"{path} is not a JSON object.")
    return document


def read_yaml_object(path: Path) -> dict[str, Any]:
    """Read a YAML mapping. Raises `FileNotFoundError` or `ValueError`, naming the file."""
    import yaml  # installed with the engines that have such files

    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing.")
    try:
        document = yaml.safe_load(path.read_text("utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}.") from error
    if not isinstance(document, dict):
        raise ValueError(f"{path} is not a YAML mapping.")
    return document


def as_token_ids(value: Any) -> list[int]:
    """Return the token ids of a field that holds one id, a list of them, or nothing."""
    if value is None:
        return []
    return [int(token) for token in (value if isinstance(value, list) else [value])]
