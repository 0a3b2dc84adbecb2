"""The contents of the images: pinned versions, licences, and the bill of materials."""

import importlib.util
import json
import os
import re
import subprocess
import tomllib
from importlib.metadata import Distribution, distribution
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[3]


def load(name: str) -> ModuleType:
    """A module of docker/, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docker_{name}", ROOT / f"docker/{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


inventory, versions = load("inventory"), load("versions")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
GPL = re.compile(r"\bA?GPL|(?<!Lesser )(?<!Library or Lesser )General Public License")
"""Matches the GPL and AGPL, and not the LGPL."""


def needed_packages(requirements: list[str]) -> dict[str, Distribution]:
    """The installed packages that these requirements bring, by name, with all that they need themselves."""
    found: dict[str, Distribution] = {}
    visited: set[tuple[str, frozenset[str]]] = set()
    pending = [Requirement(each) for each in requirements]
    while pending:
        requirement = pending.pop()
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if (name, frozenset(requirement.extras)) in visited:
            continue
        visited.add((name, frozenset(requirement.extras)))
        found[name] = distribution(requirement.name)
        for text in found[name].requires or []:
            needed = Requirement(text)
            extras = ("", *requirement.extras)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
                pending.append(needed)
    return found


def under_gpl(packages: dict[str, Distribution]) -> dict[str, list[str]]:
    """The packages under the GPL, or with libraries under the GPL in their wheels, each with its findings."""
    found = {}
    for name, package in packages.items():
        licences = [licence] if GPL.search(licence := inventory.licence_of(package)) else []
        licences += [file.name for file in package.files or [] if inventory.gpl_licence(file.name)]
        if licences:
            found[name] = licences
    return found


@pytest.mark.parametrize("extra", ["", "tracing", "build"])
def test_nothing_that_a_default_image_installs_is_under_the_gpl(extra: str) -> None:
    packages = needed_packages(PROJECT["dependencies"] + PROJECT["optional-dependencies"].get(extra, []))
    assert len(packages) > 50 and (extra == "build") is ("torch" in packages)
    assert under_gpl(packages) == {}
    assert [name for name, package in packages.items() if not inventory.licence_of(package)] == []


def test_the_packages_under_the_lgpl_are_those_of_the_record() -> None:
    """docs/decisions/0009-licences-of-images.md says why they may stay."""
    packages = needed_packages(PROJECT["dependencies"])
    lesser = {name for name, package in packages.items() if "LGPL" in inventory.licence_of(package)}
    assert lesser == {"psycopg", "psycopg-binary"}
    record = (ROOT / "docs/decisions/0009-licences-of-images.md").read_text()
    assert all(name in record for name in lesser)


def test_the_gpl_libraries_of_a_wheel_are_found() -> None:
    found = under_gpl(needed_packages(PROJECT["optional-dependencies"]["audio"]))
    assert sorted(name.split("-")[0] for name in found["av"]) == ["libx264", "libx265"]


@pytest.mark.parametrize(
    ("licence", "is_gpl"),
    [
        ("GPL-3.0-only", True),
        ("AGPL-3.0-or-later", True),
        ("GNU General Public License v2 (GPLv2)", True),
        ("LGPL-3.0-only", False),
        ("GNU Lesser General Public License v3 (LGPLv3)", False),
        ("GNU Library or Lesser General Public License (LGPL)", False),
        ("MIT", False),
    ],
)
def test_the_gpl_is_told_from_the_lgpl(licence: str, is_gpl: bool) -> None:
    assert bool(GPL.search(licence)) is is_gpl


@pytest.mark.parametrize("name", ["gateway", "builder"])
def test_images_install_no_extra_with_gpl_libraries(name: str) -> None:
    text = (ROOT / f"docker/{name}.Dockerfile").read_text()
    extras = re.findall(r"^ARG EXTRAS=(.+)$|'\.\[(\w+)\]'", text, re.MULTILINE)
    assert [first or second for first, second in extras] == [{"gateway": "tracing", "builder": "build"}[name]]


def test_compose_builds_a_gateway_that_serves_sound() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    for service in ("gateway", "gateways"):
        assert compose["services"][service]["build"]["args"]["EXTRAS"] == "${TRITONIC_EXTRAS:-tracing,audio}"


def test_compose_builds_tritons_that_serve_videos() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    for service in ("triton", "triton-vllm", "triton-trtllm"):
        assert compose["services"][service]["build"]["args"]["PACKAGES"] == "${TRITON_PACKAGES-av}"


def test_the_bill_of_materials_names_packages_and_the_libraries_in_them() -> None:
    components = {each["name"]: each for each in inventory.python_components()}
    assert components["fastapi"]["purl"] == f"pkg:pypi/fastapi@{distribution('fastapi').version}"
    libraries = {each["name"].split("-")[0]: each for each in components["av"]["components"]}
    assert libraries["libx264"]["licenses"] == [{"license": {"id": "GPL-2.0-or-later"}}]
    assert "licenses" not in libraries["libopus"]
    assert json.loads(json.dumps(components))


def test_dockerfiles_and_manifests_have_the_versions_of_the_one_file() -> None:
    assert versions.outdated_files(versions.pinned_versions()) == {}


def test_every_image_is_pinned_and_used() -> None:
    pinned = versions.pinned_versions()
    for name, image in pinned.items():
        assert re.search(r"\d+\.\d+", image.rpartition(":")[2]), image
        assert f"${{{name}:?}}" in (ROOT / "docker-compose.yml").read_text(), name
    images = re.findall(r"^ *(?:image|\w+_IMAGE): (.+)$", (ROOT / "docker-compose.yml").read_text(), re.MULTILINE)
    own = re.compile(r"tritonic-[\w-]+:\$\{TRITONIC_VERSION:-" + re.escape(PROJECT["version"]) + r"\}")
    assert all(own.fullmatch(image) or re.fullmatch(r"\$\{[A-Z_]+:\?\}", image) for image in images)
    for path in (ROOT / "docker").glob("*.Dockerfile"):
        defaults = dict(re.findall(r"^ARG ([A-Z_]+)=(\S+)$", path.read_text(), re.MULTILINE))
        assert defaults.keys() - {"EXTRAS"} <= pinned.keys(), path.name
        for base in re.findall(r"^FROM (\S+)", path.read_text(), re.MULTILINE):
            assert re.fullmatch(r"\$\{\w+_IMAGE\}", base), path.name


def test_a_raised_version_reaches_dockerfiles_and_manifests() -> None:
    raised = {"TRITON_IMAGE": "nvcr.io/nvidia/tritonserver:26.03-py3", "TRITON_VLLM_IMAGE": "x/y:26.03-vllm-python-py3"}
    assert versions.rewrite_dockerfile("ARG TRITON_IMAGE=a:1\nARG OTHER=2\n", raised) == (
        "ARG TRITON_IMAGE=nvcr.io/nvidia/tritonserver:26.03-py3\nARG OTHER=2\n"
    )
    manifest = "image: {repository: nvcr.io/nvidia/tritonserver, tag: 25.12-py3}\nimage: x/y:25.12-vllm-python-py3\n"
    assert versions.rewrite_manifest(manifest, raised) == manifest.replace("25.12", "26.03")
    other = "image: nvcr.io/nvidia/tritonserver:25.12-py3-sdk\n"
    assert versions.rewrite_manifest(other, raised) == other


def test_packages_of_the_base_image_stay_as_they_are(tmp_path: Path) -> None:
    """vLLM's and TensorRT-LLM's images have a tokenizers of their own, which their transformers needs."""
    python = tmp_path / "python3"
    python.write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {tmp_path}/calls\n'
        'case "$3 $5" in "show tokenizers") exit 0;; "show "*) exit 1;; "list "*) echo numpy==1.26.4;; esac\n'
        f'[ "$3" != install ] || cat "$7" > {tmp_path}/constraints\n'
    )
    python.chmod(0o755)
    constraints = ROOT / "constraints.txt"
    command = ["sh", str(ROOT / "docker/install-missing"), str(constraints), "llguidance", "pillow", "tokenizers"]
    subprocess.run(command, check=True, env=os.environ | {"PYTHON": str(python)})
    install = (tmp_path / "calls").read_text().splitlines()[-1].split()
    pins = [line for line in constraints.read_text().splitlines() if line.startswith(("llguidance==", "pillow=="))]
    assert install[2] == "install" and install[-2:] == pins
    assert (tmp_path / "constraints").read_text() == "numpy==1.26.4\n"
