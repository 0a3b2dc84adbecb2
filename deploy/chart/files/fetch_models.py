"""Copies a model repository from a bucket into a folder: `fetch_models.py URL FOLDER`.

The URL is one of obstore: `s3://BUCKET/PREFIX`, `gs://…`, `az://…`, `file:///…`. Credentials and endpoint come from the
environment (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL` …). Objects that did not change since the last run are not copied
again, and files whose object is gone are removed. A run that ends early leaves each file whole, old or new.
"""

import json
import sys
from pathlib import Path, PurePosixPath

import obstore
from obstore.store import from_url

LISTING = ".fetched.json"
"""The version of each file in the folder, beside it: Triton takes folders of the repository for models."""


def fetch(url: str, folder: Path) -> list[str]:
    """Bring `folder` up to date. Return the names of the files that were copied."""
    store = from_url(url)
    listing = folder.parent / f".{folder.name}{LISTING}"
    fetched: dict[str, str] = json.loads(listing.read_text()) if listing.exists() else {}
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, str] = {}
    for batch in obstore.list(store):
        for entry in batch:
            name = entry["path"]
            if ".." in PurePosixPath(name).parts:
                raise ValueError(f"{name!r} leads out of the folder.")
            found[name] = f"{entry.get('e_tag')} {entry['size']} {entry['last_modified'].isoformat()}"
    # Consoles mark folders by empty objects of their names.
    for folder_name in {str(parent) for name in found for parent in PurePosixPath(name).parents}:
        found.pop(folder_name, None)
    if not found:
        raise ValueError(f"{url} holds no objects.")
    copied = []
    for name, version in found.items():
        target = folder / name
        if fetched.get(name) == version and target.exists():
            continue
        part = folder.parent / f".{folder.name}.part"
        with part.open("wb") as file:
            for chunk in obstore.get(store, name).stream(min_chunk_size=8 * 1024 * 1024):
                file.write(chunk)
        target.parent.mkdir(parents=True, exist_ok=True)
        part.replace(target)
        copied.append(name)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(folder).as_posix() not in found:
            path.unlink()
    listing.write_text(json.dumps(found))
    return copied


if __name__ == "__main__":
    print(f"Copied {len(fetch(sys.argv[1], Path(sys.argv[2])))} files.")
