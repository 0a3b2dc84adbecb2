"""The interface through which a build reports its progress. `tritonic build` draws it."""

from typing import Literal, Protocol

Stage = Literal["fetch", "export", "verify", "install"]
STAGES: tuple[Stage, ...] = ("fetch", "export", "verify", "install")


class Progress(Protocol):
    """Receives reports of a build, from the thread that builds, with the stages in the order of `STAGES`."""

    def begin(self, stage: Stage, detail: str) -> None:
        """Report that a stage starts, and so that the one before it has ended."""

    def update(self, detail: str, fraction: float | None = None) -> None:
        """Report how far the stage is: `fraction` runs from 0 to 1; None if it is unknown."""

    def note(self, text: str) -> None:
        """Report something that the user must see, whether or not a progress bar is shown."""


class NullProgress:
    """A `Progress` that drops all reports."""

    def begin(self, stage: Stage, detail: str) -> None:
        """Do nothing."""

    def update(self, detail: str, fraction: float | None = None) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""
