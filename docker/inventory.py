"""Write what an image holds: `licences.json` of pip-licenses, and `sbom.json` in CycloneDX.

    python inventory.py PIP_LICENSES OUT    PIP_LICENSES is the folder of `pip install --target`, OUT that of the files

It describes the packages of the Python that runs it, the shared libraries inside their wheels, and Debian's packages.
"""

import json
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

GPL_LIBRARIES = {
    "libfftw3": "GPL-2.0-or-later",
    "libpostproc": "GPL-2.0-or-later",
    "librubberband": "GPL-2.0-or-later",
    "libx264": "GPL-2.0-or-later",
    "libx265": "GPL-2.0-or-later",
    "libxvidcore": "GPL-2.0-or-later",
}
"""Libraries that wheels bundle without naming their licence in the metadata."""
_LIBRARY = re.compile(r"(lib[A-Za-z0-9_+]+?)(?:-[\w.]+)?\.so(?:\.|$)")


def licence_of(package: Distribution) -> str:
    """The licence as the metadata names it, or an empty text."""
    metadata = package.metadata.json
    named = str(metadata.get("license_expression") or metadata.get("license") or "").strip()
    if named and "\n" not in named:
        return named
    classifiers = [str(each) for each in metadata.get("classifier", [])]
    return " AND ".join(each.rpartition(" :: ")[2] for each in classifiers if each.startswith("License ::"))


def bundled_libraries(package: Distribution) -> list[str]:
    """The file names of shared libraries that the wheel brings, without its extension modules."""
    files = (file for file in package.files or [] if any(part.endswith(".libs") for part in file.parts))
    return sorted({file.name for file in files if ".so" in file.name})


def gpl_licence(library: str) -> str | None:
    """The licence of a library under the GPL, by its file name; `None` for others."""
    found = _LIBRARY.match(library)
    return GPL_LIBRARIES.get(found[1]) if found else None


def python_components() -> Iterator[dict[str, Any]]:
    """CycloneDX components of the Python packages, with the libraries in their wheels below them."""
    for package in sorted(distributions(), key=lambda each: each.name.lower()):
        name = re.sub(r"[-_.]+", "-", package.name).lower()
        component: dict[str, Any] = {
            "type": "library",
            "name": package.name,
            "version": package.version,
            "purl": f"pkg:pypi/{name}@{quote(package.version)}",
        }
        if licence := licence_of(package):
            component["licenses"] = [{"license": {"name": licence}}]
        libraries = []
        for library in bundled_libraries(package):
            libraries.append({"type": "file", "name": library})
            if licence := gpl_licence(library) or "":
                libraries[-1]["licenses"] = [{"license": {"id": licence}}]  # type: ignore[assignment]
        if libraries:
            component["components"] = libraries
        yield component


def debian_components() -> Iterator[dict[str, Any]]:
    """CycloneDX components of Debian's packages; none where there is no dpkg."""
    query = shutil.which("dpkg-query")
    if query is None:
        return
    listed = subprocess.run([query, "-W", "-f", "${Package}\t${Version}\t${Architecture}\n"], stdout=-1, check=True)
    for line in sorted(listed.stdout.decode().splitlines()):
        name, version, architecture = line.split("\t")
        purl = f"pkg:deb/debian/{name}@{quote(version)}?arch={architecture}"
        yield {"type": "library", "name": name, "version": version, "purl": purl}


def bill_of_materials() -> dict[str, Any]:
    """A CycloneDX document of this machine."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "platform", "name": "python", "version": platform.python_version()}},
        "components": [*python_components(), *debian_components()],
    }


def main(pip_licenses: str, out: str) -> None:
    """Write both files into the folder `out`."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    # In a process of its own, whose path alone has the tool.
    program = f"import sys; sys.path.insert(0, {pip_licenses!r}); import piplicenses; sys.exit(piplicenses.main())"
    options = ["--with-system", "--with-urls", "--with-license-file", "--no-license-path"]
    options += ["--ignore-packages", "pip-licenses", "prettytable", "wcwidth", "--format=json"]
    command = [sys.executable, "-c", program, *options, f"--output-file={folder / 'licences.json'}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (folder / "sbom.json").write_text(json.dumps(bill_of_materials(), indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
