"""Recipes for the tiny Wan pipelines."""

from pathlib import Path
from typing import Any

from builders import recipe
from builders.video.family import VideoRecipe

VIDEOS: dict[str, Any] = {"default_num_frames": 9, "max_num_frames": 33, "default_fps": 8, "default_guidance": 3.0}


def video_recipe(source: Path, **values: Any) -> VideoRecipe:
    videos = VIDEOS | values.pop("videos", {"sizes": [[96, 64], [64, 64]]})
    made = recipe.make(**{"family": "video", "name": "tiny", "source": str(source), "videos": videos} | values)
    assert isinstance(made, VideoRecipe)
    return made
