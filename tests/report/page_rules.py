"""What every page must keep to so that all can read it, as far as the text alone can tell: the broken rules by name."""

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

TEXT = "#text"


VOID = {"meta", "wbr", "br", "hr", "img", "link", "input"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    text: str = ""
    inside: list["Element"] = field(default_factory=list)

    def find(self, tag: str) -> list["Element"]:
        below = [found for child in self.inside for found in child.find(tag)]
        return ([self] if self.tag == tag else []) + below

    @property
    def words(self) -> str:
        return " ".join([self.text, *(child.words for child in self.inside)])


class ReadPage(HTMLParser):
    """A page as a tree whose text can be read in order; every element must be closed by its own end tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.root = Element("page", {})
        self._open = [self.root]
        self.text = text
        self.feed(text)
        self.close()
        assert [element.tag for element in self._open] == ["page"]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self._open[-1].inside.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().tag == tag

    def handle_data(self, data: str) -> None:
        self._open[-1].text += data
        self._open[-1].inside.append(Element(TEXT, {}, data))

    def find(self, tag: str) -> list[Element]:
        return self.root.find(tag)

    @property
    def verdict(self) -> str:
        (found,) = (one for one in self.find("section") if "verdict" in one.attributes.get("class", ""))
        return read(found)


def read(element: Element) -> str:
    """The words of an element of a ``ReadPage``, in order."""
    return " ".join("".join(part.text for part in element.find(TEXT)).split())


def everything(page: ReadPage) -> list[Any]:
    def below(element: Any) -> list[Any]:
        return [element, *(found for child in element.inside for found in below(child))]

    return below(page.root)


def broken_rules(page: ReadPage) -> list[str]:
    elements = everything(page)
    return [*_frame(page, elements), *_network(page, elements), *_names(page, elements), *_tables(page)]


def _frame(page: ReadPage, elements: list[Any]) -> list[str]:
    broken = []
    (html,), (title,), mains = page.find("html"), page.find("head")[0].find("title"), page.find("main")
    if html.attributes.get("lang") != "en":
        broken.append("the page has no language")
    if not title.words.strip():
        broken.append("the page has no title")
    if len(mains) != 1:
        broken.append("the page has no main part, or several")
    metas = {meta.attributes.get("name"): meta.attributes.get("content", "") for meta in page.find("meta")}
    if "width=device-width" not in metas.get("viewport", "") or "user-scalable=no" in metas.get("viewport", ""):
        broken.append("a phone cannot fit or enlarge the page")
    headings = [element for element in elements if re.fullmatch("h[1-6]", element.tag)]
    levels = [int(heading.tag[1]) for heading in headings]
    if levels.count(1) != 1 or levels[0] != 1 or any(after > before + 1 for before, after in pairwise(levels)):
        broken.append(f"headings out of order: {levels}")
    broken += [f"an empty {heading.tag}" for heading in headings if not heading.words.strip()]
    return broken


def _network(page: ReadPage, elements: list[Any]) -> list[str]:
    broken = [f"an address: {found}" for found in re.findall(r"https?:[^\s\"'<]*|@import[^;]*", page.text)]
    broken += [
        f"a style asks for {found}"
        for found in re.findall(r"url\(([^)]*)\)", page.text)
        if not found.strip("\"'").startswith("#")
    ]
    for element in elements:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            if not element.attributes.get(name, "#").startswith(("#", "data:image/png;base64,")):
                broken.append(f"{element.tag} {name} leads away: {element.attributes[name]}")
    broken += [f"a {tag}" for tag in ("link", "iframe", "object", "embed") if page.find(tag)]
    return broken


def _names(page: ReadPage, elements: list[Any]) -> list[str]:
    ids = [element.attributes["id"] for element in elements if "id" in element.attributes]
    broken = [f"id {one!r} is there twice" for one in set(ids) if ids.count(one) > 1]
    wanted = [element.attributes["href"][1:] for element in elements if element.tag in ("a", "use")]
    wanted += re.findall(r"url\(#([^)]+)\)", page.text)
    for element in elements:
        for name in ("aria-labelledby", "aria-describedby"):
            wanted += element.attributes.get(name, "").split()
    broken += [f"nothing has the id {one!r}" for one in set(wanted) - set(ids)]
    for svg in page.find("svg"):
        if svg.attributes.get("role") != "img" or not svg.attributes.get("aria-label"):
            broken.append("a figure has no role or no name")
        first = [child for child in svg.inside if child.tag != TEXT][:2]
        if [child.tag for child in first] != ["title", "desc"] or not all(child.words.strip() for child in first):
            broken.append("a figure is not described")
    regions = [element for element in elements if element.attributes.get("role") == "region"]
    labels = [region.attributes.get("aria-label", "") for region in regions]
    if "" in labels or len(labels) != len(set(labels)):
        broken.append(f"regions without a name of their own: {sorted(labels)}")
    broken += ["what scrolls cannot be reached by keyboard" for one in regions if one.attributes.get("tabindex") != "0"]
    for element in elements:
        if element.tag in ("a", "button", "summary") and not element.words.strip():
            broken.append(f"a {element.tag} says nothing")
        if int(element.attributes.get("tabindex", 0)) > 0:
            broken.append("the order of the keyboard is not that of the page")
    return broken


def _tables(page: ReadPage) -> list[str]:
    broken = []
    for table in page.find("table"):
        captions = table.find("caption")
        if len(captions) != 1 or not captions[0].words.strip():
            broken.append("a table has no caption")
        name = captions[0].words.strip() if captions else "?"
        if any(head.attributes.get("scope") not in ("row", "col") for head in table.find("th")):
            broken.append(f"a head has no scope: {name}")
        if any(not head.words.strip() for head in table.find("th")):
            broken.append(f"an empty head: {name}")
        if len({len(row.find("td") + row.find("th")) for row in table.find("tr")}) != 1:
            broken.append(f"rows of unequal length: {name}")
        sorted_by = [head for head in table.find("th") if "aria-sort" in head.attributes]
        if len(sorted_by) > 1 or any(
            head.attributes["aria-sort"] not in ("ascending", "descending") for head in sorted_by
        ):
            broken.append(f"sorted by several columns: {name}")
    names = [caption.words.strip() for caption in page.find("caption")]
    broken += [f"two tables are called {one!r}" for one in set(names) if names.count(one) > 1]
    return broken
