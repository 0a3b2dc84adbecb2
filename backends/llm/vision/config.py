"""What the builder writes down of a model's pictures."""

import json
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """How the checkpoint's own processor prepares pictures, and what it writes into a prompt for them."""

    tile: int
    """Pixels a side of a tile; the encoder sees whole tiles."""
    longest_edge: int
    """A picture is scaled to so many pixels along its longer side before it is cut."""
    largest_side: int
    """No side is scaled to more pixels than this."""
    split: bool
    """Whether pictures are cut into tiles at all; otherwise each is squeezed into one."""
    resample: int
    """Pillow's number of the filter."""
    rescale_factor: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    tokens_per_tile: int
    image_token: str
    """The mark of a picture in a prompt, and in the expanded prompt the place of one vector."""
    image_token_id: int
    fake_token: str
    global_token: str
    tile_token: str
    """With `{row}` and `{column}`, counted from 1."""


def read_vision_config(folder: Path) -> VisionConfig:
    """Read `vision.json`. Raises `FileNotFoundError` or `ValueError` with a sentence that names the file."""
    path = folder / "vision.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the model takes vectors, so the builder writes it beside it.")
    try:
        document = json.loads(path.read_text("utf-8"))
        values = {field.name: document[field.name] for field in fields(VisionConfig)}
        return VisionConfig(**values | {name: tuple(map(float, values[name])) for name in ("mean", "std")})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} does not say how pictures are prepared: {error!r}.") from error
