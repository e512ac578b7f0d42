"""Named sets of metrics: which, in what order, what cells they need."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from multipert.data.suggestions import did_you_mean
from multipert.errors import InputError
from multipert.evaluation.registry import METRICS, Metric, Needs, choose, default_metrics
from multipert.evaluation.study_metrics import STUDY
from multipert.evaluation.vcc2026 import VCC2026


@dataclass(frozen=True)
class Profile:
    """A named set of metrics.

    Attributes
    ----------
    name
        What it is called.
    meaning
        One line for a reader.
    metrics
        Gives the names, in the order of the tables.
    needs
        What the cells hold: log-normalised expression or raw counts.
    combined
        Whether the metrics of a context combine to one score, the mean of what each scores between its bounds.
    """

    name: str
    meaning: str
    metrics: Callable[[], tuple[str, ...]]
    needs: Needs = "log-normalised"
    combined: bool = False


PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile("default", "all of ours", lambda: tuple(default_metrics())),
        Profile("study", "the nine of the study, as it computed them", lambda: STUDY),
        Profile(
            "vcc2026",
            "the six of the Virtual Cell Challenge 2026, on raw counts of several perturbations, and their mean",
            lambda: tuple(VCC2026),
            needs="counts",
            combined=True,
        ),
    )
}
"""Every profile by name."""


def find_profile(name: str) -> Profile:
    """Find a profile.

    Raises
    ------
    InputError
        There is none of that name.
    """
    if name not in PROFILES:
        raise InputError(f"there is no profile {name!r}; {did_you_mean(name, PROFILES)}")
    return PROFILES[name]


def reads_counts(profile: str, metrics: Iterable[str] | None, counts_layer: str | None) -> bool:
    """Whether a profile reads raw counts.

    Raises
    ------
    InputError
        There is no such profile, metrics are named beside one of counts, or a counts layer beside one that reads none.
    """
    found = find_profile(profile)
    if found.needs == "counts":
        if metrics is not None:
            raise InputError(f"the profile {profile!r} has metrics of its own: leave out metrics or the profile")
        return True
    if counts_layer is not None:
        raise InputError(f"the profile {profile!r} reads no counts: leave out counts_layer {counts_layer!r}")
    return False


def choose_metrics(profile: str, metrics: Iterable[str] | None, *, several: bool) -> list[Metric]:
    """Choose the metrics named, else those of a profile; without those that need several perturbations if there is one.

    Raises
    ------
    InputError
        As ``choose``.
    """
    if metrics is not None:
        return choose(metrics, several=several)
    names = find_profile(profile).metrics()
    return choose([name for name in names if several or not METRICS[name].several], several=several)
