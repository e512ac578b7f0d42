"""A page as a tree, and scores that say what a test wants them to say."""

from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser

import pandas as pd

from multipert.benchmark import HeldOutTest
from multipert.evaluation import METRICS
from multipert.models import NoChange

HELD_OUT = "C"
VOID = {"meta", "wbr", "br", "hr", "img", "link", "input"}


class Candidate(NoChange):
    """Stands for a model that was trained: what it predicts does not matter where scores are made by hand."""

    name = "candidate"
    title = "a stand-in"


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


class Page(HTMLParser):
    """A page as a tree; every element must be closed by its own end tag."""

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

    def find(self, tag: str) -> list[Element]:
        return self.root.find(tag)

    @property
    def verdict(self) -> str:
        (found,) = (one for one in self.find("section") if "verdict" in one.attributes.get("class", ""))
        return " ".join(found.words.split())


def scores_of(**errors: float) -> pd.DataFrame:
    """A table in which every metric says the same: rows by name, each with how far it falls short of the best."""

    def score(name: str, error: float) -> float:
        return 1 + error if METRICS[name].better == "one" else error if METRICS[name].better == "low" else 1 - error

    names = [name for name, metric in METRICS.items() if not metric.several]
    rows = {row.replace("_", "-"): [score(name, error) for name in names] for row, error in errors.items()}
    return pd.DataFrame(rows, index=names).T


def winning() -> pd.DataFrame:
    return scores_of(candidate=0.2, no_change=0.8, mean_shift=0.4, ceiling=0.1)


def losing() -> pd.DataFrame:
    return scores_of(candidate=0.9, no_change=0.8, mean_shift=0.4, ceiling=0.1)


MakeTest = Callable[..., HeldOutTest]
