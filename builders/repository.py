"""Install a finished model into a Triton model repository atomically.

Triton 2.51 treats every folder of a repository as a model, hidden ones too. Without explicit model control it refuses
to start if one is unfinished. So a model is staged next to the repository, on the same filesystem, in
`.<repository>.tritonic/<model>/`, and one rename moves it into place. Models that belong together are moved one after
the other, under a journal. If a build dies between two of them, the next build rolls the first ones back.
"""

import ctypes
import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from builders.errors import NotEnoughSpace, RepositoryBusy

RENAME_EXCHANGE = 2
AT_FDCWD = -100


@dataclass(frozen=True, slots=True)
class StagingArea:
    """The working folders of one build. They are deleted when the build ends, however it ends."""

    target: Path
    """The model's folder in the repository."""
    root: Path

    @property
    def model_folder(self) -> Path:
        """The folder that becomes the model."""
        return self.root / "model"

    @property
    def scratch_folder(self) -> Path:
        """A folder for temporary files of the build."""
        return self.root / "scratch"

    @property
    def part_folders(self) -> list[Path]:
        """The folders of the sibling models, which are installed together with `model_folder`."""
        folder = parts_folder(self.model_folder)
        return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []

    @property
    def _previous(self) -> Path:
        return self.root / "previous"

    @property
    def _journal(self) -> Path:
        return self.root / "journal.json"

    def install(self, stale: Iterable[str] = (), check: Callable[[Path], None] = lambda _: None) -> None:
        """Flush everything to disk and rename it into the repository, where it replaces older versions as a whole.

        Either all models are installed, or none. Then the models named in `stale` are removed from the repository.
        `check` is called with each folder that is about to be replaced, and raises if it must not be. The check is
        repeated here because a build takes minutes and holds no lock on its sibling models.
        """
        models = [*self.part_folders, self.model_folder]
        for path in [path for model in models for path in [*model.rglob("*"), model]]:
            _fsync(path)
        self._previous.mkdir(exist_ok=True)
        journal = {self._target_of(model).name: model.stat().st_ino for model in models}
        self._journal.write_text(json.dumps(journal), encoding="utf-8")
        _fsync(self._journal)
        _fsync(self.root)
        try:
            for model in models:
                target = self._target_of(model)
                if not target.exists():
                    model.rename(target)
                    continue
                check(target)
                if not _exchange(model, target):
                    target.rename(self._previous / target.name)
                    model.rename(target)
            _fsync(self.target.parent)
        except BaseException:
            self.roll_back()
            raise
        self._journal.unlink()
        _fsync(self.root)
        for name in stale:
            if (old := self.target.parent / name).exists():
                old.rename(self._previous / f"{name}.stale")

    def roll_back(self) -> None:
        """Restore the previous models if a build died while it installed; do nothing if there is no journal."""
        try:
            journal = json.loads(self._journal.read_bytes())
        except (FileNotFoundError, ValueError):  # a partly written journal: nothing was moved yet
            return
        for name, inode in journal.items():
            target, previous = self.target.parent / name, self._previous / name
            staged = self.model_folder if name == self.target.name else parts_folder(self.model_folder) / name
            if target.exists() and target.stat().st_ino == inode:  # the new model: a rename keeps the inode
                if not staged.exists():
                    target.rename(staged)
                elif not _exchange(staged, target):
                    target.rename(self._previous / f"{name}.new")
                    staged.rename(target)
            if previous.exists() and not target.exists():
                previous.rename(target)
        self._journal.unlink()

    def _target_of(self, model: Path) -> Path:
        return self.target if model == self.model_folder else self.target.parent / model.name


def parts_folder(model: Path) -> Path:
    """Return the folder in which a build stages the sibling models of `model`, each in a folder of its name."""
    return model.parent / "parts"


@contextmanager
def staging_area(repository: Path, name: str) -> Iterator[StagingArea]:
    """Lock one model of a repository, clean up after builds that died, and yield a staging area.

    Raises RepositoryBusy if another build holds the lock, or if the repository cannot be written.
    """
    created = not repository.exists()
    repository.mkdir(parents=True, exist_ok=True)
    repository = repository.resolve()
    base = repository.parent / f".{repository.name}.tritonic"
    try:
        with _locked(base, name):
            _clear_dead(base, repository, name)
            place = StagingArea(repository / name, base / name)
            place.roll_back()
            shutil.rmtree(place.root, ignore_errors=True)
            try:
                place.model_folder.mkdir(parents=True)
                place.scratch_folder.mkdir()
                if place.root.stat().st_dev != repository.stat().st_dev:
                    raise RepositoryBusy(
                        f"{repository} is a mount of its own, so a model cannot be moved into it in one step. "
                        "Use a folder inside it as the repository, or mount its parent."
                    )
                yield place
            finally:
                shutil.rmtree(place.root, ignore_errors=True)
    except PermissionError as error:
        raise RepositoryBusy(f"{error.filename} cannot be written: {error.strerror}.") from error
    finally:
        with suppress(OSError):
            base.rmdir()
        if created:
            with suppress(OSError):
                repository.rmdir()  # only if nothing was installed


def check_disk_space(folder: Path, needed: int) -> None:
    """Raise NotEnoughSpace unless the filesystem of `folder` has `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise NotEnoughSpace(
            f"The build needs about {needed / 1e9:.1f} GB on the disk of {folder}, and {free / 1e9:.1f} GB are free."
        )


@contextmanager
def _locked(base: Path, name: str) -> Iterator[None]:
    descriptor = _acquire(base, name)
    if descriptor is None:
        raise RepositoryBusy(f"Another build of {name} is running. Wait for it, or end it.")
    try:
        yield
    finally:
        (base / f"{name}.lock").unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(base: Path, name: str) -> int | None:
    """Take the lock of a model without waiting; None if another process holds it. The kernel frees it on any exit."""
    path = base / f"{name}.lock"
    for _ in range(100):
        base.mkdir(exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except FileNotFoundError:  # the folder was removed by a build that just ended
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        with suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        os.close(descriptor)  # the previous holder removed the file between our open and our lock
        time.sleep(0.01)
    return None


def _clear_dead(base: Path, repository: Path, name: str) -> None:
    """Roll back and remove the staging areas of killed builds of other models."""
    for root in [path for path in base.iterdir() if path.is_dir() and path.name != name]:
        if (descriptor := _acquire(base, root.name)) is not None:
            StagingArea(repository / root.name, root).roll_back()
            shutil.rmtree(root, ignore_errors=True)
            (base / f"{root.name}.lock").unlink(missing_ok=True)
            os.close(descriptor)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders atomically; return False if the filesystem does not support it."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    done: int = renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)
    if done == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.EINVAL, errno.ENOSYS, errno.EXDEV, errno.ENOTSUP):
        return False
    raise OSError(code, os.strerror(code), str(other))


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
