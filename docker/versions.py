"""Write the versions of `.env` wherever else they stand: the Dockerfiles, and the manifests of deploy/.

python3 docker/versions.py [--check]    --check changes nothing, and fails if a file disagrees
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
_ASSIGNMENT = re.compile(r"^([A-Z_]+)=(\S+)$", re.MULTILINE)


def pinned_versions() -> dict[str, str]:
    """The images and tools of `.env`, by the names of their variables."""
    found = dict(_ASSIGNMENT.findall((ROOT / ".env").read_text()))
    del found["COMPOSE_PROFILES"]
    return found


def rewrite_dockerfile(text: str, versions: dict[str, str]) -> str:
    """Give each `ARG NAME=…` of a Dockerfile the version of that name."""

    def default(found: re.Match[str]) -> str:
        return f"ARG {found[1]}={versions.get(found[1], found[2])}"

    return re.sub(r"^ARG ([A-Z_]+)=(\S+)$", default, text, flags=re.MULTILINE)


def rewrite_manifest(text: str, versions: dict[str, str]) -> str:
    """Give each image of a manifest that is one of ours, whatever its tag, the tag of the same variant."""
    for image in versions.values():
        name, _, tag = image.partition(":")
        variant = re.sub(r"\d+", "[0-9]+", re.escape(tag))
        text = re.sub(rf"(\b{re.escape(name)}(?::|, tag: )){variant}(?![\w.-])", rf"\g<1>{tag}", text)
    return text


def outdated_files(versions: dict[str, str]) -> dict[Path, str]:
    """The files that disagree with `versions`, with the text that they should have."""
    texts = {path: rewrite_dockerfile(path.read_text(), versions) for path in (ROOT / "docker").glob("*.Dockerfile")}
    texts |= {path: rewrite_manifest(path.read_text(), versions) for path in (ROOT / "deploy").rglob("*.yaml")}
    return {path: text for path, text in sorted(texts.items()) if text != path.read_text()}


def main() -> None:
    """Write, or only name, the files that disagree."""
    check = "--check" in sys.argv[1:]
    outdated = outdated_files(pinned_versions())
    for path, text in outdated.items():
        print(f"{path.relative_to(ROOT)} {'has other versions than .env' if check else 'changed'}")
        if not check:
            path.write_text(text)
    sys.exit(1 if check and outdated else 0)


if __name__ == "__main__":
    main()
