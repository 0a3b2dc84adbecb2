"""The image configuration of a model, `vision.json`, which the builder writes."""

import json
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """The options with which the checkpoint's own processor prepares images, and the tokens that mark them in a prompt.

    The field names are the members of `vision.json`.
    """

    tile: int
    """Side of a square tile in pixels. The encoder takes whole tiles."""
    longest_edge: int
    """Pixels to which the longer side of an image is scaled before it is cut into tiles."""
    largest_side: int
    """Upper limit in pixels of both sides after scaling."""
    split: bool
    """True if images are cut into tiles; otherwise each is resized to one tile."""
    resample: int
    """Resampling filter, as Pillow's number (`PIL.Image.Resampling`)."""
    rescale_factor: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    tokens_per_tile: int
    image_token: str
    """The placeholder of an image in a prompt; in the expanded prompt, the position of one image embedding."""
    image_token_id: int
    fake_token: str
    global_token: str
    tile_token: str
    """Format string with `{row}` and `{column}`, counted from 1."""


def read_vision_config(folder: Path) -> VisionConfig:
    """Read `vision.json`. Raises `FileNotFoundError` or `ValueError` with a sentence that names the file."""
    path = folder / "vision.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the builder writes it for models that take images.")
    try:
        document = json.loads(path.read_text("utf-8"))
        values = {field.name: document[field.name] for field in fields(VisionConfig)}
        return VisionConfig(**values | {name: tuple(map(float, values[name])) for name in ("mean", "std")})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a valid image configuration: {error!r}.") from error
