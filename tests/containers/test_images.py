"""The three images: what they weigh, and what they hold."""

import json
from collections.abc import Callable

import pytest

from tests.containers.engine import Deployment, Engine
from tests.unit.tritonic.test_image_contents import GPL, inventory, versions

pytestmark = pytest.mark.containers

IMAGES = {"gateway": "fastapi", "triton": "onnxruntime", "builder": "torch"}
"""The project's images, and a package that each must hold."""


def read(engine: Engine, image: str, path: str) -> str:
    name = f"tritonic-{image}:0.1.0"
    return engine.run("run", "--rm", "--network", "none", "--entrypoint", "cat", name, path)


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_lists_its_packages_and_licences(built: Deployment, engine: Engine, image: str) -> None:
    licences = json.loads(read(engine, image, "/usr/share/tritonic/licences.json"))
    assert IMAGES[image] in {each["Name"].lower() for each in licences}
    assert all(each["License"] and each["Version"] for each in licences)
    bill = json.loads(read(engine, image, "/usr/share/tritonic/sbom.json"))
    assert {IMAGES[image], "libc6"} <= {each["name"] for each in bill["components"]}


@pytest.mark.parametrize("image", IMAGES)
def test_the_packages_of_an_image_are_not_under_the_gpl(built: Deployment, engine: Engine, image: str) -> None:
    """Of Python; Debian's packages in the base images are programs beside ours (docs/decisions/0009).

    The gateway and the Triton of compose have PyAV, and nothing else of that kind (docs/decisions/0010).
    """
    bill = json.loads(read(engine, image, "/usr/share/tritonic/sbom.json"))
    packages = [each for each in bill["components"] if each["purl"].startswith("pkg:pypi/")]
    assert len(packages) > 5
    audio = {each["name"] for each in packages} & {"av"}
    assert audio == ({"av"} if image in ("gateway", "triton") else set())
    for package in (each for each in packages if each["name"] not in audio):
        licences = [each["license"]["name"] for each in package.get("licenses", [])]
        assert not [licence for licence in licences if GPL.search(licence)], package
        libraries = [each["name"] for each in package.get("components", [])]
        assert not [library for library in libraries if inventory.gpl_licence(library)], package


@pytest.mark.parametrize(
    ("image", "base", "most"),
    [("gateway", "PYTHON_IMAGE", 0.5e9), ("triton", "TRITON_IMAGE", 0.4e9), ("builder", "PYTHON_IMAGE", 2.5e9)],
)
def test_what_an_image_adds_to_its_base(
    built: Deployment, engine: Engine, image: str, base: str, most: float, record: Callable[[str, float, str], None]
) -> None:
    """The stand-ins have other sizes than the images that they stand for."""
    names = (f"tritonic-{image}:0.1.0", versions.pinned_versions()[base])
    size, of_base = (json.loads(engine.run("image", "inspect", name))[0]["Size"] for name in names)
    record(f"image {image} without its base", (size - of_base) / 1e6, "MB")
    record(f"image {image} with its base", size / 1e6, "MB")
    assert size - of_base < most


@pytest.mark.parametrize("variable", ["TRITON_VLLM_IMAGE", "TRITON_TRTLLM_IMAGE"])
def test_the_image_of_another_engine_builds(built: Deployment, engine: Engine, variable: str) -> None:
    """On a base that has none of these engines: it shows that the Dockerfile takes the name of another base."""
    base = versions.pinned_versions()[variable]
    arguments = ["--network", "host", "--file", f"{built.root}/docker/triton.Dockerfile"]
    engine.run("build", *arguments, "--build-arg", f"TRITON_IMAGE={base}", "--tag", variable.lower(), str(built.root))
