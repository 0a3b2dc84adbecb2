"""How a build tells what it is doing. The builders draw nothing: the command does."""

from typing import Literal, Protocol

Stage = Literal["fetch", "export", "verify", "install"]
STAGES: tuple[Stage, ...] = ("fetch", "export", "verify", "install")


class Progress(Protocol):
    """Told what a build does. Calls come from the thread that builds, in the order of `STAGES`."""

    def begin(self, stage: Stage, detail: str) -> None:
        """Say that a stage starts; the one before it is done."""

    def update(self, detail: str, fraction: float | None = None) -> None:
        """Say how far the stage is: `fraction` runs from 0 to 1; None where it cannot be known."""

    def note(self, text: str) -> None:
        """Say something that the person should know whether or not they watch."""


class NullProgress:
    """A progress that nobody watches."""

    def begin(self, stage: Stage, detail: str) -> None:
        """Say nothing."""

    def update(self, detail: str, fraction: float | None = None) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""
