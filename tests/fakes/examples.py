"""The examples of docs/extending.md, imported as if they lay in the project's packages."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[2] / "docs" / "examples"


def import_example(example: str, module: str) -> ModuleType:
    """Import a module of the folder `example`, as in `import_example("dialect", "gateway.dialects.toy.chat")`."""
    parts = module.split(".")
    # The innermost package that the project itself has finds its new members in the example, too.
    for size in range(len(parts) - 1, 0, -1):
        folder = FOLDER.joinpath(example, *parts[:size])
        if not (folder / "__init__.py").exists():
            package = import_module(".".join(parts[:size]))
            if str(folder) not in package.__path__:
                package.__path__.append(str(folder))
            break
    return import_module(module)
