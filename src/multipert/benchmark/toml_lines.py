"""Read TOML, and say on which line of it a value stands, which tomllib does not."""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from multipert.data import check_no_device
from multipert.errors import InputError

Place: TypeAlias = tuple[str | int, ...]
"""The keys and the indices of arrays that lead to a value."""

_TOKEN = re.compile(
    r'''"""(?:\\.|[^\\])*?""""{0,2}|\'\'\'.*?\'\'\'\'{0,2}'''  # texts over several lines
    r"""|"(?:\\.|[^"\\])*"|'[^']*'"""
    r"""|\#[^\n]*"""
    r"""|[\[\]{}=,.]"""
    r"""|[^\s\[\]{}=,.\#"']+""",
    re.DOTALL,
)


def read_toml(path: Path) -> str:
    """The text of a TOML file; refuse what is none."""
    check_no_device(path)
    try:
        return path.read_text(encoding="utf-8-sig")  # some editors begin a file with a mark
    except FileNotFoundError:
        raise InputError(f"there is no study file {path}: check the path") from None
    except OSError as error:
        raise InputError(f"cannot read the study file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InputError(f"the study file {path} is no text in UTF-8: save it as UTF-8") from None


def parse_toml(path: Path, text: str) -> dict[str, Any]:
    """What tomllib reads in it; where that is no TOML, say on which line."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, line = str(error), 1 + text.rstrip("\n").count("\n")
        if found := re.search(r" \(at line (\d+), column \d+\)$", message):
            line = int(found[1])
        reason = message.rpartition(" (at ")[0] or message
        raise InputError(f"{path}, line {line}: this is no TOML: {reason[:1].lower()}{reason[1:]}") from None


def where_in(path: Path, text: str, *place: str | int) -> str:
    """How messages name the line of a value."""
    line = line_of(text, place)
    return str(path) if line is None else f"{path}, line {line}"


def line_of(text: str, place: Sequence[str | int]) -> int | None:
    """Find the line of a value, or of the innermost table or array around it that is written down.

    Parameters
    ----------
    text
        TOML that tomllib accepts.
    place
        Keys and indices, such as ``("datasets", 0, "held_out")``.

    Returns
    -------
    int or None
        The line, counted from 1; none where nothing on the way is written down.
    """
    lines = lines_of(text)
    around = (tuple(place[:depth]) for depth in range(len(place), 0, -1))
    return next((lines[one] for one in around if one in lines), None)


def lines_of(text: str) -> dict[Place, int]:
    """Find the line of every value, table and array of a TOML text that tomllib accepts, by its place."""
    return _Walk(text).lines


class _Walk:
    """One walk over a text known to be sound, so that it need not tell right from wrong.

    Attributes
    ----------
    lines
        The line of every value, table and array by its place; where there are several, the first.
    """

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, int]] = []
        line, counted = 1, 0
        for match in _TOKEN.finditer(text):
            line, counted = line + text.count("\n", counted, match.start()), match.start()
            if not match[0].startswith("#"):
                self._tokens.append((match[0], line))
        self._next = 0
        self._tables_in: dict[Place, int] = {}
        self.lines: dict[Place, int] = {}
        table: Place = ()
        while self._next < len(self._tokens):
            if self._token == "[":
                table = self._header()
            else:
                self._pair(table)

    @property
    def _token(self) -> str:
        return self._tokens[self._next][0]

    @property
    def _line(self) -> int:
        return self._tokens[self._next][1]

    def _take(self, sign: str) -> bool:
        """Step over ``sign``, if it is next."""
        taken = self._token == sign
        self._next += taken
        return taken

    def _note(self, place: Place, line: int) -> None:
        for depth in range(1, len(place) + 1):
            self.lines.setdefault(place[:depth], line)

    def _header(self) -> Place:
        """``[table]`` or ``[[one of an array of tables]]``."""
        line = self._line
        self._take("[")
        several = self._take("[")
        *outer, last = self._key()
        place: Place = ()
        for part in outer:
            place += (part,)
            if place in self._tables_in:  # a table of an array stands for its latest
                place += (self._tables_in[place] - 1,)
        place += (last,)
        if several:
            self._tables_in[place] = self._tables_in.get(place, 0) + 1
            place += (self._tables_in[place] - 1,)
        self._next += 1 + several
        self._note(place, line)
        return place

    def _pair(self, table: Place) -> None:
        """``key = value``."""
        line = self._line
        place = table + self._key()
        self._take("=")
        self._note(place, line)
        self._value(place)

    def _key(self) -> tuple[str, ...]:
        """``key``, or ``several.keys."with dots"``."""
        parts = []
        while True:
            part = self._token
            parts.append(next(iter(tomllib.loads(f"{part} = 0"))))  # unquoted as TOML has it
            self._next += 1
            if not self._take("."):
                return tuple(parts)

    def _value(self, place: Place) -> None:
        line = self._line
        self._note(place, line)
        if self._take("["):
            index = 0
            while not self._take("]"):
                self._value((*place, index))
                self._take(",")
                index += 1
        elif self._take("{"):
            while not self._take("}"):
                self._pair(place)
                self._take(",")
        else:
            self._next += 1
            # Numbers have dots, and dates a space, in them.
            while self._next < len(self._tokens) and self._line == line and self._token[0] not in "[]{}=,":
                self._next += 1
