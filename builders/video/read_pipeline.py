"""Read a video pipeline's folder of any family."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from builders.checkpoint import read_json
from builders.video import pipeline as wan
from builders.video.motion_pipeline import check_motion_index, is_motion, motion_folders, read_motion
from builders.video.pipeline import VideoPipeline


def check_index(index: dict[str, Any]) -> str:
    """Return the family of a pipeline from its `model_index.json`. Raises UnsupportedModel, which names the class."""
    return check_motion_index(index) if is_motion(index) else wan.check_index(index)


def folders(index: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the folders of a pipeline that decide what is built."""
    return motion_folders(index) if is_motion(index) else wan.FOLDERS


def read(folder: Path) -> VideoPipeline:
    """Read the pipeline in a folder. Raises SourceUnavailable, UnsupportedModel."""
    index = read_json(folder / "model_index.json", needed=True)
    return read_motion(folder) if is_motion(index) else wan.read(folder)
