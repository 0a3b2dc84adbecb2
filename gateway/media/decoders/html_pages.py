"""Conversion of HTML to Markdown, in time linear in the length of the page.

The parser and the converter have steps of quadratic time: for each element they search the rest of the page, or all
siblings. An attacker can write pages that exploit this. The classes here avoid these steps.
"""

import re
from collections import Counter
from typing import Any

from bs4 import BeautifulSoup
from bs4.builder._htmlparser import BeautifulSoupHTMLParser, HTMLParserTreeBuilder
from bs4.element import NavigableString
from markdownify import ATX, MarkdownConverter

from gateway.media.invalid_media import InvalidMedia

_MAX_TAGS = 300_000
"""Most `<` of a page. 1 MB of prose with links has about 40,000."""
_VOID_ELEMENTS = HTMLParserTreeBuilder.DEFAULT_EMPTY_ELEMENT_TAGS or set()
_SKIPPED_ELEMENTS = frozenset(("script", "style", "template", "noscript", "svg", "iframe", "object"))


def html_to_markdown(html: str, *, max_characters: int) -> str:
    """Return the text of a page in Markdown, without scripts and styles, and with the `alt` texts of images.

    Raises `InvalidMedia` for too many tags to parse in time, and for nested quotations of more than `max_characters`.
    """
    if html.count("<") > _MAX_TAGS:
        raise InvalidMedia(f"its markup has more tags than the limit of {_MAX_TAGS}")
    page = BeautifulSoup(_close_unterminated(html), builder=_Builder)
    title_tag = page.find(lambda tag: tag.name == "title" and tag.find_parent("svg") is None)
    title = title_tag.get_text(strip=True) if title_tag is not None else ""
    if page.head is not None:
        page.head.decompose()
    converter = _Converter(
        max_characters,
        heading_style=ATX,
        table_infer_header=True,
        bullets="-",
        escape_asterisks=False,
        escape_underscores=False,
        escape_misc=False,
    )
    body = re.sub(r"\n{3,}", "\n\n", str(converter.convert_soup(page)).strip())
    return f"# {title}\n\n{body}" if title and not body.startswith(f"# {title}\n") and body != f"# {title}" else body


def _close_unterminated(html: str) -> str:
    """Return the page without unterminated constructs: for each of them, the parser would search the rest of the page.

    They end at the first ">", as in the HTML standard, and become text if there is none. (`html.parser` does that too
    since Python 3.11.14, but after each search.)
    """
    at = html.rfind(">") + 1
    html, rest = html[:at], html[at:].replace("<", "&lt;")
    for beginning, end in (("<!--", "-->"), ("<![", "]]>")):
        at = html.rfind(end) + 1
        html = html[:at] + html[at:].replace(beginning, "<!")
    return html + rest


class _Parser(BeautifulSoupHTMLParser):
    def handle_endtag(self, tag: str, check_already_closed: bool = True) -> None:
        """End an element. The original searches all empty elements so far for each end tag."""
        if not check_already_closed or tag not in _VOID_ELEMENTS:
            super().handle_endtag(tag, check_already_closed=False)


class _Builder(HTMLParserTreeBuilder):
    def feed(self, markup: Any, _parser_class: type[BeautifulSoupHTMLParser] = _Parser) -> None:
        super().feed(markup, _parser_class)


_Base: Any = MarkdownConverter  # its type stubs lack the methods to override


class _Converter(_Base):  # type: ignore[misc]
    """Skips hidden elements, and visits siblings once."""

    def __init__(self, max_characters: int, **options: Any) -> None:
        super().__init__(**options)
        self._max_characters = max_characters
        self._item_counts: Counter[int] = Counter()

    def process_element(self, node: Any, parent_tags: set[str] | None = None) -> str:
        if isinstance(node, NavigableString):
            return str(self.process_text(node, parent_tags=parent_tags))
        return "" if node.name in _SKIPPED_ELEMENTS else str(self.process_tag(node, parent_tags=parent_tags))

    def escape(self, text: str, parent_tags: set[str]) -> str:
        """Escape bars in the cells of tables."""
        text = super().escape(text, parent_tags)
        return text.replace("|", "\\|") if parent_tags & {"td", "th"} else text

    def convert_img(self, el: Any, text: str, parent_tags: set[str]) -> str:
        return self.escape(" ".join(str(el.get("alt") or "").split()), parent_tags)

    def convert_blockquote(self, el: Any, text: str, parent_tags: set[str]) -> str:
        if len(text) > self._max_characters:
            raise InvalidMedia(f"its text is longer than the limit of {self._max_characters} characters")
        return str(super().convert_blockquote(el, text, parent_tags))

    def convert_li(self, el: Any, text: str, parent_tags: set[str]) -> str:
        parent = el.parent
        if parent is None or parent.name != "ol":
            return str(super().convert_li(el, text, parent_tags))
        self._item_counts[id(parent)] += 1
        text = text.strip()
        if not text:
            return "\n"
        first = str(parent.get("start") or "")
        number = (int(first) if first.isdecimal() and len(first) < 10 else 1) + self._item_counts[id(parent)] - 1
        bullet = f"{number}. "
        first_line, *further_lines = text.split("\n")
        lines = [bullet + first_line, *(" " * len(bullet) + line if line else "" for line in further_lines)]
        return "\n".join(lines) + "\n"

    def convert_tr(self, el: Any, text: str, parent_tags: set[str]) -> str:
        """Format a row. Only the first row of a table is its head."""
        has_previous = el.find_previous_sibling() is not None or (
            el.parent.name == "tbody" and el.parent.find_previous_sibling("tbody") is not None
        )
        return f"|{text}\n" if has_previous else str(super().convert_tr(el, text, parent_tags))
