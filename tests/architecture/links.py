"""What Markdown pages refer to: links, pictures, anchors, and the project's own paths in backticks."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from posixpath import normpath
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt
from markdown_it.token import Token

_MARKDOWN = MarkdownIt("commonmark").enable("table")
_HTML_TARGET = re.compile(r"<[^>]*\b(?:href|src)\s*=\s*[\"']([^\"']+)[\"']", re.IGNORECASE)
_HTML_ANCHOR = re.compile(r"<[^>]*\b(?:id|name)\s*=\s*[\"']([^\"']+)[\"']", re.IGNORECASE)
_NOT_IN_A_SLUG = re.compile(r"[^\w\- ]")
# `gateway/app.py`, `gateway/app.py:create_app` and `docs/`. What holds other characters is a pattern or no path.
_PATH = re.compile(r"([\w.-]+(?:/[\w.-]+)*/?)(?::[\w.-]+)?")


@dataclass(frozen=True)
class Page:
    """One Markdown file: what it refers to, with the number of the line, and the anchors of its headings."""

    links: tuple[tuple[int, str], ...]
    words: tuple[tuple[int, str], ...]
    """The words of its inline code."""
    anchors: frozenset[str]


def read(text: str) -> Page:
    """The links, inline code and anchors of a page."""
    links: list[tuple[int, str]] = []
    words: list[tuple[int, str]] = []
    anchors: set[str] = set()
    slugs: Counter[str] = Counter()
    heading = False
    for line, token in _tokens(_MARKDOWN.parse(text)):
        if token.type in ("link_open", "image"):
            links.append((line, str(token.attrs["href" if token.type == "link_open" else "src"])))
        elif token.type == "code_inline":
            words += [(line, word.strip("\"'(),;")) for word in token.content.split()]
        elif token.type in ("html_block", "html_inline"):
            links += [(line, target) for target in _HTML_TARGET.findall(token.content)]
            anchors.update(_HTML_ANCHOR.findall(token.content))
        elif token.type == "inline" and heading:
            anchors.add(_unique(slug(_plain(token)), slugs))
        heading = token.type == "heading_open"
    return Page(tuple(links), tuple(words), frozenset(anchors))


def slug(heading: str) -> str:
    """GitHub's anchor of a heading: lower case, hyphens for spaces, no punctuation but hyphens and underscores."""
    return _NOT_IN_A_SLUG.sub("", heading.lower()).replace(" ", "-")


def broken(pages: dict[str, str], files: set[str]) -> list[str]:
    """What leads nowhere in the pages, as `page:line: target: why`.

    `pages` are texts by their paths, `files` all paths of the project; both relative to its root.
    """
    read_pages = {path: read(text) for path, text in pages.items()}
    known = files | {str(folder) for path in files for folder in Path(path).parents}
    tops = {path.split("/")[0] for path in files if "/" in path}
    found = []
    for path, page in read_pages.items():
        for line, target in page.links:
            if why := _why_broken(path, target, known, read_pages):
                found.append(f"{path}:{line}: {target}: {why}")
        for line, word in page.words:
            named = _PATH.fullmatch(word)
            if named and "/" in named[1] and word.split("/")[0] in tops and named[1].rstrip("/") not in known:
                found.append(f"{path}:{line}: {word}: no such file")
    return found


def _why_broken(path: str, target: str, known: set[str], pages: dict[str, Page]) -> str | None:
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:  # of the net, which a test does not ask
        return None
    there = unquote(parts.path)
    # GitHub reads a path that begins with a slash from the root of the repository.
    file = normpath(there.lstrip("/") if there.startswith("/") else str(Path(path).parent / there)) if there else path
    if file not in known:
        return "no such file"
    if not parts.fragment:
        return None
    if file not in pages:
        return "anchors are known of Markdown files only"
    return None if unquote(parts.fragment) in pages[file].anchors else "no such heading"


def _tokens(tokens: list[Token], line: int = 0) -> Iterator[tuple[int, Token]]:
    """All tokens, those inside others after them, with the number of the line that their block begins at."""
    for token in tokens:
        line = token.map[0] + 1 if token.map else line
        yield line, token
        yield from _tokens(token.children or [], line)


def _plain(inline: Token) -> str:
    return "".join(child.content for child in inline.children or [] if child.type in ("text", "code_inline"))


def _unique(wanted: str, taken: Counter[str]) -> str:
    """The second heading `Metrics` of a page is `metrics-1`."""
    found = wanted if wanted not in taken else f"{wanted}-{taken[wanted]}"
    taken[wanted] += 1
    return found
