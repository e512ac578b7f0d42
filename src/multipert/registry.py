"""Things by name, ours and other people's: models and metrics that a package adds are found as ours are."""

from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

from multipert.data.suggestions import did_you_mean
from multipert.errors import InputError

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """What there is of one kind: first what was entered with :meth:`add`, then what installed packages announce.

    A package announces what it enters as entry points, in its ``pyproject.toml``::

        [project.entry-points."multipert.models"]
        mine = "my_package:Mine"

    So its names are known without importing it; it is imported when one of them is looked up.

    Parameters
    ----------
    kind
        What the things are called in messages, such as ``"model"``.
    group
        The entry-point group.
    """

    def __init__(self, kind: str, group: str) -> None:
        self.kind, self.group = kind, group
        self._known: dict[str, T] = {}

    def add(self, name: str, thing: T) -> None:
        """Enter a thing; one of the same name is replaced only by a new definition of itself, as in a notebook.

        Raises
        ------
        InputError
            If another thing has the name.
        """
        if name in self._known and _origin(self._known[name]) != _origin(thing):
            raise InputError(
                f"there are two {self.kind}s called {name!r}, {_origin(self._known[name])} and {_origin(thing)}: "
                "give one of them another name"
            )
        self._known[name] = thing

    def remove(self, name: str) -> None:
        """Forget a thing that was entered, if it was."""
        self._known.pop(name, None)

    def find(self, name: str) -> T:
        """The thing called ``name``.

        Raises
        ------
        InputError
            If there is none, or its package cannot be imported.
        """
        if name not in self:
            raise InputError(f"there is no {self.kind} {name!r}; {did_you_mean(name, self)}")
        return self[name]

    def loaded(self) -> tuple[dict[str, T], list[InputError]]:
        """All that there is, and why the rest cannot be loaded: somebody's broken package must not hide ours."""
        found, faults = {}, []
        for name in self:
            try:
                found[name] = self[name]
            except InputError as error:
                faults.append(error)
        return found, faults

    @property
    def ours(self) -> list[str]:
        """The names without those that installed packages announce: what is meant where nobody names any."""
        announced = self._announced()
        return [name for name in self._known if name not in announced]

    def __getitem__(self, name: str) -> T:
        if name not in self._known:
            self._load(self._announced()[name])
        return self._known[name]

    def __contains__(self, name: object) -> bool:
        return name in self._known or name in self._announced()

    def __iter__(self) -> Iterator[str]:
        return iter({**self._known, **self._announced()})

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _announced(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}

    def _load(self, point: EntryPoint) -> None:
        package = point.dist.name if point.dist is not None else point.value
        try:
            point.load()
        except Exception as error:  # whatever goes wrong in other people's code
            raise InputError(
                f"the {self.kind} {point.name!r} of the package {package} cannot be loaded "
                f"({type(error).__name__}: {error}): update or uninstall that package"
            ) from error
        if point.name not in self._known:
            raise InputError(
                f"the package {package} announces a {self.kind} {point.name!r}, but {point.value} enters none of that "
                "name: decorate it, and call it and its entry point alike"
            )


def _origin(thing: object) -> str:
    """Where a thing, or the function that it holds, was defined."""
    defined = getattr(thing, "function", thing)
    return f"{getattr(defined, '__module__', None)}.{getattr(defined, '__qualname__', repr(defined))}"
