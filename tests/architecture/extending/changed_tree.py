"""A copy of the project to which examples are added, and what that changes."""

import difflib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.architecture.extending.page import AddedLine
from tests.architecture.source_tree import PACKAGES, ROOT, project_files

_COPIED = {*PACKAGES, "training", "model_repository", "pyproject.toml"}


class ChangedTree:
    """A copy of the packages and their settings in `folder`, which does not exist yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._original = {path for path in project_files() if path.parts[0] in _COPIED}
        for path in self._original:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, folder / path)
        for cache in {(ROOT / path).parent / "__pycache__" for path in self._original if path.suffix == ".py"}:
            if cache.is_dir():  # compiled files stay valid, as the copies keep their times
                shutil.copytree(cache, folder / cache.relative_to(ROOT), dirs_exist_ok=True)

    def add(self, files: dict[str, str], added_lines: list[AddedLine]) -> None:
        """Add the files and the lines of an example. No file may be there already."""
        for path, text in files.items():
            file = self.folder / path
            assert not file.exists()
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        for line in added_lines:
            file = self.folder / line.path
            file.write_text(line.apply(file.read_text()))

    def new_places(self) -> set[str]:
        """Return what the project does not have: a file where it has the folder, else the outermost new folder."""
        folders = {parent for path in self._original for parent in path.parents}
        places = set()
        for path in self._files() - self._original:
            outward = [path, *path.parents]
            places.add(str(next(place for place in reversed(outward) if place not in folders)))
        return places

    def changed_lines(self) -> dict[str, list[str]]:
        """Return the lines that are changed in files of the project, as in a diff: `+ added` and `- removed`."""
        changed = {}
        for path in self._original:
            before, after = (ROOT / path).read_bytes(), (self.folder / path).read_bytes()
            if before != after:
                lines = difflib.ndiff(before.decode().splitlines(), after.decode().splitlines())
                changed[str(path)] = [line for line in lines if line[0] in "+-"]
        return changed

    def run(self, *command: str, **environment: str) -> str:
        """Run a program on the copy and return its output. It imports tests from the project, all else from here."""
        paths = os.pathsep.join([str(self.folder), str(ROOT)])
        ran = subprocess.run(
            command,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": paths, "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
            | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr
        return ran.stdout

    def run_module(self, module: str, *arguments: str) -> str:
        """Run a module on the copy and return its output."""
        return self.run(sys.executable, "-m", module, *arguments)

    def _files(self) -> set[Path]:
        found = (path for path in self.folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {path.relative_to(self.folder) for path in found}
