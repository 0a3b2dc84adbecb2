"""Renders the chart with helm, which `make chart` fetches."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.dashboards import ROOT

CHART = ROOT / "deploy/chart"
EXAMPLES = sorted((CHART / "ci").glob("*.yaml"))
_CACHED = ROOT / ".chart-tools/helm"


def find_helm() -> str | None:
    """Return the path of helm, from the cache of `make chart` or the PATH."""
    return str(_CACHED) if _CACHED.exists() else shutil.which("helm")


class RenderError(Exception):
    """Helm refused the values; the message is its own."""


def render(values: Path | None = None, settings: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the manifests of a release named `release` in the namespace `serving`. Raises `RenderError`."""
    helm = find_helm()
    assert helm is not None
    arguments = [f"--values={values}"] if values else []
    arguments += [f"--set-json={setting}" for setting in settings]
    ran = subprocess.run(
        [helm, "template", "release", str(CHART), "--namespace=serving", *arguments], capture_output=True, text=True
    )
    if ran.returncode:
        raise RenderError(ran.stderr)
    return [document for document in yaml.safe_load_all(ran.stdout) if document]
