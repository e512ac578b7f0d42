"""A saved model is read whole or refused with one sentence, whatever became of its files."""

import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import multipert as mp
from models.conftest import KEYS
from multipert.models import Model
from multipert.models.run_folder import _seal

FILES = ("model.json", "run.json", "history.csv", "model.safetensors")
VALUES: tuple[Any, ...] = (None, "x", "", -1, 0.5, 10**30, True, [], [None], {}, {"x": 1}, "control", float("nan"))


@pytest.fixture(scope="module", params=["mtae", "scgen", "resample", "mtcell"])
def run_folder(
    request: pytest.FixtureRequest, adata: AnnData, tiny: Callable[..., Model], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    data = mp.PerturbationData.from_anndata(adata, **KEYS)
    folder = tmp_path_factory.mktemp("runs") / request.param
    tiny(request.param).fit(data, mp.leave_context_out(data, "B"), run=folder, progress=False, device="cpu")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def loads_or_is_refused(files: dict[str, bytes], folder: Path, controls: AnnData) -> bool:
    """Whether a folder of such files loads; where it does, it predicts or says why not."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with suppress(mp.InputError):
        model = mp.models.load(folder)
        return predicts_or_refuses(model, controls)
    return False


def predicts_or_refuses(model: Model, controls: AnnData) -> bool:
    try:
        predicted = model.predict(controls, model.perturbations[0])
    except mp.InputError:
        return True
    assert np.isfinite(predicted.X).all()
    return True


def places(value: Any) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside a JSON value, of long lists only to the first."""
    inside = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, one in inside:
        yield (key,)
        yield from ((key, *rest) for rest in places(one))


def changed(value: Any, place: tuple[Any, ...], new: Any, *, delete: bool = False) -> Any:
    copy = json.loads(json.dumps(value))
    inside = copy
    for key in place[:-1]:
        inside = inside[key]
    if delete:
        del inside[place[-1]]
    else:
        inside[place[-1]] = new
    return copy


def sealed(record: Any, weights: bytes) -> bytes:
    """``model.json`` as if it had been meant so."""
    return json.dumps({**record, "checksum": _seal(record, weights)}).encode()


def written(name: str, record: Any, whole: dict[str, bytes]) -> bytes:
    return sealed(record, whole["model.safetensors"]) if name == "model.json" else json.dumps(record).encode()


@pytest.mark.parametrize("name", ["model.json", "run.json"])
def test_every_field_is_checked(name: str, run_folder: Path, controls: AnnData, tmp_path: Path) -> None:
    whole = files(run_folder)
    assert loads_or_is_refused(whole, tmp_path, controls)
    record = json.loads(whole[name])
    measured = (
        {"device", "precision", "seconds_fit", "steps", "n_parameters", "left_out"} if name == "run.json" else set()
    )
    for place in places(record):
        for new in VALUES:
            spoilt = written(name, changed(record, place, new), whole)
            loads_or_is_refused({**whole, name: spoilt}, tmp_path, controls)
        lacking = written(name, changed(record, place, None, delete=True), whole)
        if len(place) == 1 and place != ("checksum",):
            assert loads_or_is_refused({**whole, name: lacking}, tmp_path, controls) == (place[0] in measured), place


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_flipped_and_missing_bytes_are_noticed(
    run_folder: Path, controls: AnnData, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = files(run_folder)
    name = data.draw(st.sampled_from(FILES))
    content = bytearray(whole[name])
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= data.draw(st.integers(1, 255))
    else:
        content = content[:at]
    loaded = loads_or_is_refused({**whole, name: bytes(content)}, tmp_path_factory.mktemp("flipped"), controls)
    assert not (loaded and name == "model.safetensors")


def test_a_digit_that_changed_is_noticed(run_folder: Path, tmp_path: Path, controls: AnnData) -> None:
    whole = files(run_folder)
    record = json.loads(whole["model.json"])
    record["metadata"]["scale"]["low"] += 1  # as good as any other by its type
    assert not loads_or_is_refused({**whole, "model.json": json.dumps(record).encode()}, tmp_path, controls)


def test_weights_are_checked_one_by_one(run_folder: Path, tmp_path: Path) -> None:
    whole, arrays = files(run_folder), load_file(run_folder / "model.safetensors")
    may_be_nan = {"delta", "controls", "shifts", "means", "quantiles"}
    floats = [one for one in arrays if arrays[one].dtype.kind == "f" and one.rpartition(".")[2] not in may_be_nan]
    name = max(floats, key=lambda one: arrays[one].size)
    nan = arrays[name].copy()
    nan.flat[0] = np.nan
    others = {
        "the weights lack": {one: array for one, array in arrays.items() if one != name},
        "the weights should not have 'more'": {**arrays, "more": np.zeros(1, np.float32)},
        f"the weights {name!r} are": {**arrays, name: arrays[name].reshape(-1, 1, 1, 1)},
        f"the weights {name!r} are not finite": {**arrays, name: nan},
    }
    for message, wrong in others.items():
        save_file(wrong, tmp_path / "model.safetensors")
        weights = (tmp_path / "model.safetensors").read_bytes()
        for other in ("run.json", "history.csv"):
            (tmp_path / other).write_bytes(whole[other])
        (tmp_path / "model.json").write_bytes(sealed(json.loads(whole["model.json"]), weights))
        with pytest.raises(mp.InputError) as caught:
            mp.models.load(tmp_path)
        assert message in str(caught.value)


def test_files_are_for_whom_the_umask_says(run_folder: Path) -> None:
    umask = os.umask(0)
    os.umask(umask)
    assert {stat.S_IMODE((run_folder / name).stat().st_mode) for name in FILES} == {0o666 & ~umask}


def test_the_run_says_how_it_was_made(run_folder: Path) -> None:
    run, loaded = json.loads((run_folder / "run.json").read_text()), mp.models.load(run_folder)
    assert (run["device"], run["precision"]) == ("cpu", "float32") == (loaded.device_, loaded.precision_)
    assert run["seconds_fit"] == loaded.seconds_fit_


def test_another_format_is_named(run_folder: Path, tmp_path: Path, controls: AnnData) -> None:
    whole = files(run_folder)
    newer = json.dumps({**json.loads(whole["model.json"]), "format": 99}).encode()
    assert not loads_or_is_refused({**whole, "model.json": newer}, tmp_path, controls)
    with pytest.raises(mp.InputError, match="format 99, this version of multipert reads 3"):
        mp.models.load(tmp_path)
