"""The errors of a build. Each message is a complete sentence for the user.

BuildError
├── RecipeError            the recipe or the command line is invalid
├── MissingDependency      a package that the builders need is not installed
├── SourceUnavailable      the weights cannot be fetched or read
├── UnsupportedModel       the exporter does not support this architecture, precision or target
├── NotEnoughSpace         the disk or the memory is too small for the model
├── RepositoryBusy         another build of the same model is running, or the repository cannot be written
├── ExportFailed           the exporter failed
└── VerificationFailed     the engine's output differs too much from the source model's
"""


class BuildError(RuntimeError):
    """A build is impossible or failed; the message says why."""


class RecipeError(BuildError):
    """The recipe or the command line is invalid."""


class MissingDependency(BuildError):
    """A package that the builders need is not installed."""

    def __init__(self, package: str | None, remedy: str | None = None) -> None:
        super().__init__(
            f"Building needs the Python package {package!r}, which is not installed here. "
            + (remedy or "Install the builders' packages with: pip install 'tritonic[build]' -c constraints.txt")
        )


class SourceUnavailable(BuildError):
    """The weights cannot be fetched or read: no such folder, no network, no permission, or not a checkpoint."""


class UnsupportedModel(BuildError):
    """The exporter does not support this architecture, precision or target."""


class NotEnoughSpace(BuildError):
    """The disk or the memory is too small for the model."""


class RepositoryBusy(BuildError):
    """Another build of the same model is running, or the repository cannot be written."""


class ExportFailed(BuildError):
    """The exporter failed; the message quotes the end of its output."""


class VerificationFailed(BuildError):
    """The engine's output differs too much from the source model's; the message gives the figures."""
