"""What every model must keep, whoever wrote it: a test to call from the tests of a package that adds one."""

import dataclasses
import inspect
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from multipert.data import PerturbationData, leave_context_out, simulate
from multipert.errors import InputError
from multipert.models import MODELS, Model, load, preset_names

KEYS: dict[str, Any] = {"perturbation_key": "condition", "control": "control", "context_key": "cell_type"}
HELD_OUT = "B"


def check_model(model: type[Model], **parameters: Any) -> None:
    """Check that a model can be used wherever ours can: configured, fitted, asked for predictions, saved and loaded.

    Fits the model a few times to 108 simulated cells of 40 genes, three contexts and two perturbations, on the CPU.

    Parameters
    ----------
    model
        Its class, entered with :func:`multipert.models.register`.
    **parameters
        Values with which it trains in a moment, such as ``epochs=1``.

    Raises
    ------
    AssertionError
        Naming every rule that it breaks.

    Examples
    --------
    >>> from multipert.testing import check_model
    >>> check_model(Mine, epochs=1)  # doctest: +SKIP
    """
    case = _Case(model, parameters)
    broken = []
    for name, check in inspect.getmembers(case, inspect.ismethod):
        if name.startswith("check_"):
            try:
                check()
            except AssertionError as error:
                broken.append(str(error))
            except Exception as error:  # a model may fail in any way
                broken.append(f"{name.removeprefix('check_').replace('_', ' ')}: {type(error).__name__}: {error}")
    if broken:
        raise AssertionError(
            f"{model.__name__} breaks {len(broken)} rules:\n" + "\n".join(f"- {one}" for one in broken)
        )


class _Case:
    """A model, and a small world to try it in; each ``check_`` method is a rule."""

    def __init__(self, model: type[Model], parameters: dict[str, Any]) -> None:
        self.model, self.parameters = model, parameters
        self.adata = simulate(
            n_genes=40, contexts=("A", HELD_OUT, "C"), perturbations=("alpha", "beta"), cells_per_group=12, seed=3
        )
        is_control = (self.adata.obs["condition"] == "control").to_numpy()
        held_out = (self.adata.obs["cell_type"] == HELD_OUT).to_numpy()
        self.controls, self.hidden = self.adata[is_control & held_out].copy(), held_out & ~is_control
        self._fitted: Model | None = None

    def new(self, **changes: Any) -> Model:
        """An unfitted one."""
        return self.model(**(self.parameters | changes))

    def fit(self, adata: AnnData | None = None, **changes: Any) -> Model:
        """One fitted without the held-out context's perturbed cells."""
        data = PerturbationData.from_anndata(self.adata if adata is None else adata, **KEYS)
        return self.new(**changes).fit(data, leave_context_out(data, HELD_OUT), device="cpu", progress=False)

    @property
    def fitted(self) -> Model:
        """The same one each time."""
        self._fitted = self.fit() if self._fitted is None else self._fitted
        return self._fitted

    def predict(self, model: Model, perturbation: str = "alpha") -> np.ndarray[Any, Any]:
        """Predicted profiles of the held-out control cells."""
        return np.asarray(model.predict(self.controls, perturbation).X)

    # Configuration.

    def check_card(self) -> None:
        """It says what it is, and is found by its name."""
        told = ("name", "title", "source", "family", "serves", "assumes", "loss")
        for attribute in told:
            value = getattr(self.model, attribute, None)
            _require(isinstance(value, str) and value.strip(), f"its class attribute {attribute} is no text: {value!r}")
        found = MODELS.get(self.model.name)
        _require(found is self.model, f"no @register has entered it under its name {self.model.name!r}")

    def check_parameters(self) -> None:
        """Every parameter has a default in its range; every preset is one it can be made with."""
        declared = self.model.Parameters
        _require(dataclasses.is_dataclass(declared), "Parameters is no dataclass")
        fields = [field.name for field in dataclasses.fields(declared)]
        shown = list(inspect.signature(self.model).parameters)
        _require(shown == ["preset", "seed", *fields], f"its signature shows {shown}, but Parameters has {fields}")
        for preset in preset_names(self.model):
            made = self.model(preset=preset)
            again = self.model(preset=preset, **dataclasses.asdict(made.parameters))
            _require(made.parameters == again.parameters, f"preset {preset!r} is not read back as what it is")

    def check_repr(self) -> None:
        """It can be made again from what it prints."""
        made = self.new(seed=7)
        again = eval(repr(made), {self.model.__name__: self.model})
        same = (again.parameters, again.seed, again.preset) == (made.parameters, made.seed, made.preset)
        _require(same, f"its repr makes another model: {made!r}")

    def check_unknown_parameters_are_refused(self) -> None:
        """A name that is none, a preset that is none."""
        _refuses(lambda: self.model(no_such_parameter=1), "an unknown parameter")
        _refuses(lambda: self.model(preset="no such preset"), "an unknown preset")

    # Fitting.

    def check_nothing_works_before_fit(self) -> None:
        """An unfitted model says so."""
        _refuses(lambda: self.new().predict(self.controls, "alpha"), "to predict before it is fitted")
        with tempfile.TemporaryDirectory() as folder:
            _refuses(lambda: self.new().save(Path(folder) / "run"), "to be saved before it is fitted")

    def check_fit(self) -> None:
        """It gives itself, with what every fitted model has, and leaves the caller's cells and random numbers alone."""
        before, model, state = self.adata.X.copy(), self.new(), _global_state()
        data = PerturbationData.from_anndata(self.adata, **KEYS)
        _require(model.fit(data, device="cpu", progress=False) is model, "fit does not give the model itself")
        _require((before != self.adata.X).nnz == 0, "fit changes the cells it is given")
        _require(state == _global_state(), "fit draws from NumPy's global random numbers")
        _require(model.perturbations == ("alpha", "beta"), f"it knows other perturbations: {model.perturbations}")
        _require(model.n_parameters >= 0 and len(model.history_) >= 0, "it counts neither parameters nor epochs")

    def check_held_out_cells_play_no_part(self) -> None:
        """Whatever the held-out context's perturbed cells hold, the model comes out the same."""
        tampered = self.adata.copy()
        X = tampered.X.toarray()
        X[self.hidden] = X[self.hidden][:, ::-1]
        tampered.X = X
        same = np.array_equal(self.predict(self.fit(tampered)), self.predict(self.fitted))
        _require(same, "the held-out context's perturbed cells change its prediction")

    def check_seeds(self) -> None:
        """The same seed gives the same prediction."""
        same = np.array_equal(self.predict(self.fit()), self.predict(self.fitted))
        _require(same, "two fits with the same seed predict differently")

    # Predicting.

    def check_prediction(self) -> None:
        """One cell for each control cell, in the form every metric takes."""
        before = self.controls.copy()
        predicted = self.fitted.predict(self.controls, "beta")
        X = np.asarray(predicted.X)
        _require(X.shape == self.controls.shape, f"it predicts {X.shape} values of {self.controls.shape}")
        _require(X.dtype == np.float32, f"it predicts {X.dtype}, not float32")
        _require(np.isfinite(X).all() and X.min() >= 0, "it predicts values that are negative or not finite")
        _require(list(predicted.var_names) == list(self.adata.var_names), "its genes are in another order")
        _require(list(predicted.obs_names) == list(self.controls.obs_names), "its cells are in another order")
        _require(set(predicted.obs["condition"]) == {"beta"}, "its cells do not say what they are predicted under")
        same = (before.X != self.controls.X).nnz == 0 and before.obs.equals(self.controls.obs)
        _require(same, "predict changes the cells it is given")
        _require(np.array_equal(X, self.predict(self.fitted, "beta")), "it predicts differently when asked again")

    def check_several_perturbations(self) -> None:
        """All of them are each of them."""
        predicted = self.fitted.predict(self.controls, "all")
        for name in ("alpha", "beta"):
            X = np.asarray(predicted[predicted.obs["condition"] == name].X)
            _require(np.array_equal(X, self.predict(self.fitted, name)), f"'all' predicts {name!r} differently")

    def check_any_cells(self) -> None:
        """Genes in another order, cells of a context never seen, one cell alone."""
        shuffled = self.controls[:, ::-1].copy()
        same = np.array_equal(np.asarray(self.fitted.predict(shuffled, "alpha").X), self.predict(self.fitted))
        _require(same, "the order of the genes in the given cells changes its prediction")
        foreign = self.controls[:1].copy()
        foreign.obs["cell_type"] = pd.Categorical(["never seen"])
        X = np.asarray(self.fitted.predict(foreign, "alpha").X)
        _require(X.shape == (1, 40) and np.isfinite(X).all(), "it cannot predict one cell of a context never seen")

    def check_bad_cells_are_refused(self) -> None:
        """One sentence each, before anything is predicted."""
        fitted = self.fitted
        _refuses(lambda: fitted.predict(self.controls, "no such perturbation"), "an unknown perturbation")
        _refuses(lambda: fitted.predict(self.controls[:, :20].copy(), "alpha"), "cells that lack genes")
        _refuses(lambda: fitted.predict(self.adata, "alpha"), "cells that are not control")

    # Saving.

    def check_saved_and_loaded(self) -> None:
        """What is loaded predicts the same and is the same; a run is not overwritten unasked."""
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            self.fitted.save(run)
            loaded = load(run)
            _refuses(lambda: self.fitted.save(run), "to be saved over another run")
        for name in ("alpha", "beta"):
            same = np.array_equal(self.predict(loaded, name), self.predict(self.fitted, name))
            _require(same, f"saved and loaded, it predicts {name!r} differently")
        _require(repr(loaded) == repr(self.fitted), f"saved and loaded, it is another: {loaded!r}")
        _require(loaded.n_parameters == self.fitted.n_parameters, "saved and loaded, it has other parameters")


def _global_state() -> bytes:
    """Where NumPy's global random stream stands."""
    return pickle.dumps(np.random.get_state())  # noqa: NPY002


def _require(kept: object, otherwise: str) -> None:
    """Say which rule is broken, unless it is kept."""
    if not kept:
        raise AssertionError(otherwise)


def _refuses(call: Callable[[], object], what: str) -> None:
    """``call`` must end with an InputError, one sentence."""
    try:
        call()
    except InputError:
        return
    raise AssertionError(f"it does not refuse {what} with an InputError")
