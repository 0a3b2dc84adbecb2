"""`tritonic train`: run the training code of a checkout; the installed package has none."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from tritonic.errors import TritonicError


class TrainingError(TritonicError):
    """The training code, or a package that it needs, is not installed; the message says where to get it."""


def train_model(name: str, arguments: Sequence[str]) -> None:
    """Run the training of a model, such as `moving-shapes`, with these arguments in this process.

    That is `python -m training.PACKAGE train`. Raises TrainingError.
    """
    package = name.replace("-", "_")
    if importlib.util.find_spec("training") is None and (Path.cwd() / "training" / package).is_dir():
        sys.path.insert(0, str(Path.cwd()))
    try:
        main = importlib.import_module(f"training.{package}.__main__").main
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "training":
            raise TrainingError(
                "The training code is missing: it is in the folder `training` of the project, not in the installed "
                f"package.\nClone the project, and run `tritonic train {name}` in its folder."
            ) from error
        raise TrainingError(
            f"Training needs the package {error.name!r}: pip install 'tritonic[build]' -c constraints.txt"
        ) from error
    main(["train", *arguments])
