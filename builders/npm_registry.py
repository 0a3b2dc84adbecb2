"""Downloads from the registry of npm, without npm."""

import os
import urllib.error
import urllib.request
from pathlib import Path

from builders.errors import SourceUnavailable

DEFAULT_REGISTRY = "https://registry.npmjs.org"
_SECONDS = 300
"""Time without a byte after which a download is given up."""


def download(name: str, version: str, folder: Path) -> Path:
    """Download the archive of a package into `folder`. Raises SourceUnavailable."""
    target = folder / f"{name.rpartition('/')[2]}-{version}.tgz"
    url = f"{registry()}/{name}/-/{target.name}"
    if not url.startswith(("https://", "http://")):
        raise SourceUnavailable(f"The npm registry of {url} is no web address.")
    try:
        with (
            urllib.request.urlopen(url, timeout=_SECONDS) as response,  # noqa: S310 - its scheme was checked
            target.open("wb") as file,
        ):
            while block := response.read(1 << 20):
                file.write(block)
    except (urllib.error.URLError, OSError) as error:
        raise SourceUnavailable(
            f"{url} could not be downloaded: {error}. Is the npm registry reachable from here? "
            "npm_config_registry names another."
        ) from error
    return target


def registry() -> str:
    """Return the registry that npm uses here: of its environment variable or its file in the user's folder."""
    for variable in ("npm_config_registry", "NPM_CONFIG_REGISTRY"):
        if value := os.environ.get(variable):
            return value.rstrip("/")
    settings = Path.home() / ".npmrc"
    for line in settings.read_text().splitlines() if settings.is_file() else ():
        name, _, value = line.partition("=")
        if name.strip() == "registry" and value.strip():
            return value.strip().rstrip("/")
    return DEFAULT_REGISTRY
