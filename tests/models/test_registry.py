"""Models by name, and models that are not ours."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

import multipert as mp
from multipert.models import MODELS, parameter, preset_names
from multipert.models.baselines import MeanShift, NoChange
from multipert.testing import check_model


@pytest.fixture
def mine() -> Iterator[Any]:
    """A model of somebody else's, with a parameter and a preset of its own."""

    @mp.models.register
    class Mine(NoChange):
        """Adds the same to every value."""

        name = "mine"

        @dataclass(frozen=True, kw_only=True)
        class Parameters:
            added: float = parameter(0.5, "what is added", at_least=0)
            plain: int = 3

        presets: ClassVar = {"bold": {"added": 2.0}}

    yield Mine
    MODELS.remove("mine")


def test_another_model_is_configured_as_ours_are(mine: Any) -> None:
    assert mp.models.create("mine").parameters.added == 0.5
    assert mp.models.create("mine", preset="bold", plain="4").parameters == mine.Parameters(added=2.0, plain=4)
    assert preset_names(mine) == ("default", "bold")
    assert "added : float, default 0.5\n    What is added." in mine.__doc__
    for wrong, message in (
        ({"added": -1}, "parameter 'added' of 'mine' must be 0 or more, not -1"),
        ({"add": 1}, "model 'mine' has no parameter 'add'; did you mean 'added'?"),
        ({"preset": "study"}, "model 'mine' has no preset 'study'; there are 'default', 'bold'"),
    ):
        with pytest.raises(mp.InputError) as caught:
            mp.models.create("mine", **wrong)
        assert str(caught.value).startswith(message)


def test_two_models_cannot_have_one_name(mine: Any) -> None:
    with pytest.raises(mp.InputError, match="there are two models called 'mine'"):
        MODELS.add("mine", MeanShift)
    MODELS.add("mine", mine)
    assert mp.models.model_class("mine") is mine


@pytest.mark.parametrize("value", [np.inf, np.nan, "inf", "nan", "1e400", None, [1], {}])
def test_a_number_is_finite(value: object) -> None:
    with pytest.raises(mp.InputError, match="parameter 'lr' of 'mtae' takes a number"):
        mp.models.create("mtae", lr=value)
    with pytest.raises(mp.InputError, match="parameter 'latent' of 'mtae' takes a whole number"):
        mp.models.create("mtae", latent=value)


def test_check_model_names_every_rule_that_is_broken() -> None:
    class Sloppy(NoChange):
        name = "sloppy"

        def _predict(self, X: Any, groups: Any, condition: int) -> Any:
            return np.random.default_rng().random(X.shape)

    with pytest.raises(AssertionError, match="Sloppy breaks .* rules") as caught:
        check_model(Sloppy)
    for rule in ("no @register has entered it", "two fits with the same seed", "differently when asked again"):
        assert rule in str(caught.value)
