"""`tritonic build video`: its help, exit statuses and messages."""

import signal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from builders import recipe
from builders.video.family import VideoRecipe
from tritonic.build import make_app


def run(*arguments: str) -> tuple[int, str]:
    handler = signal.getsignal(signal.SIGTERM)
    try:
        done = CliRunner().invoke(make_app(), [*arguments], env={"COLUMNS": "200"})
    finally:
        signal.signal(signal.SIGTERM, handler)
    return done.exit_code, " ".join(done.output.split())


def test_the_command_describes_itself() -> None:
    status, text = run("video", "--help")
    assert status == 0
    for option in ("--precision <str> fp32", "--target <str>", "--device <str>", "--max-rows <int> Videos"):
        assert option in text


@pytest.mark.parametrize(
    ("arguments", "status", "sentence"),
    [
        (["--source", "/nowhere"], 1, "There is no folder '/nowhere'"),
        (["--source", "packaged:nonsense"], 2, "Known: moving-shapes."),
        (["--recipe", "shapes"], 2, "is of the family 'diffusion', not 'video'"),
        (["--recipe", "wan2.1-t2v-1.3b", "--precision", "int8"], 1, "video models are built in fp32, not int8"),
        (["--recipe", "wan2.1-t2v-1.3b", "--target", "tensorrt", "--device", "cpu"], 1, "TensorRT runs on NVIDIA GPUs"),
    ],
)
def test_failures_give_a_message_and_a_status(tmp_path: Path, arguments: list[str], status: int, sentence: str) -> None:
    found, text = run("video", *arguments, "--repository", str(tmp_path / "repository"))
    assert (found, sentence in text) == (status, True), text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["moving-shapes", "wan2.1-t2v-1.3b", "wan2.2-ti2v-5b", "animatediff-v1-5-3"])
def test_published_recipes_are_valid(name: str) -> None:
    read = recipe.load(name)
    assert isinstance(read, VideoRecipe)
    assert read.videos.sizes and read.videos.default_fps <= read.videos.max_fps
    assert (read.videos.max_num_frames or read.videos.default_num_frames) >= read.videos.default_num_frames
