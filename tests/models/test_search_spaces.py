"""What a search may try of a model, and values that a file overlays."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

import multipert as mp
from multipert.models import MODELS, Range, create, preset_of, search_space


@pytest.mark.parametrize("name", [name for name in MODELS.ours if search_space(MODELS[name])])
def test_all_that_may_be_tried_is_allowed_and_the_default_is_among_it(name: str) -> None:
    defaults = dataclasses.asdict(create(name).parameters)
    for parameter, space in search_space(MODELS[name]).items():
        tried = (space.low, space.high) if isinstance(space, Range) else space
        for value in tried:
            create(name, **{parameter: value})
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            assert getattr(create(name, **{parameter: text}).parameters, parameter) == value
        if isinstance(space, Range):
            assert space.low <= defaults[parameter] <= space.high
            assert space.low > 0 or not space.log
        else:
            assert defaults[parameter] in space


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "there is no preset file .*: check the path"),
        ("latent 64", "is no TOML: .*line 1"),
        ("", r"has no table \[mtae\]; it has no table at all"),
        ("[scgen]\nlatent = 64", r"has no table \[mtae\]; it has \[scgen\]"),
        ("[mtae]\nlatnet = 64", "found.toml: model 'mtae' has no parameter 'latnet'; did you mean 'latent'"),
        ("[mtae]\nlatent = 0", "found.toml: parameter 'latent' of 'mtae' must be 1 or more, not 0"),
        ('[mtae]\nlatent = "wide"', "found.toml: parameter 'latent' of 'mtae' takes a whole number, not 'wide'"),
    ],
)
def test_a_preset_file_that_is_wrong_is_refused_in_a_sentence(text: str | None, sentence: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "found.toml").write_text(text)
    with pytest.raises(mp.InputError, match=sentence):
        create("mtae", preset=tmp_path / "found.toml")


def test_a_preset_file_overlays_the_defaults_and_what_is_given_overlays_it(tmp_path: Path) -> None:
    (tmp_path / "found.toml").write_text("[mtae]\nlatent = 64\nhidden = [32, 16]\n")
    name, values = preset_of(MODELS["mtae"], tmp_path / "found.toml")
    assert (name, values["latent"], values["hidden"]) == ("default", 64, (32, 16))
    model = create("mtae", preset=tmp_path / "found.toml", latent=8)
    assert (model.parameters.latent, model.parameters.hidden, model.preset) == (8, (32, 16), "default")
    assert "latent=8" in repr(model)


@pytest.mark.parametrize(("name", "perturbations"), [("mtae", 2), ("scgen", 1), ("scvidr", 1), ("scgen", 2)])
def test_a_network_in_training_predicts_as_it_will_when_it_ends_there(name: str, perturbations: int) -> None:
    cells = mp.simulate(
        n_genes=20, contexts=("A", "B", "C"), perturbations=("alpha", "beta")[:perturbations], cells_per_group=20
    )
    data = mp.PerturbationData.from_anndata(
        cells, perturbation_key="condition", control="control", context_key="cell_type"
    )
    split = mp.leave_context_out(data, "C")
    controls = data.to_anndata(data.rows(condition="control", context="C"))
    plain = create(name, epochs=2, batch_size=16).fit(data, split).predict(controls, "alpha")
    seen: list[Any] = []

    def look(network: object, history: object) -> None:
        now = model.in_progress(network, data, split)
        seen.append(now and now.predict(controls, "alpha").X)

    model: Any = create(name, epochs=2, batch_size=16)
    model.fit(data, split, on_epoch=look)
    watched = model.predict(controls, "alpha")
    assert (watched.X == plain.X).all()  # looking changes nothing
    if perturbations > 1 and name == "scgen":
        assert seen[0] is None  # a network for each, trained in turn
    else:
        assert abs(seen[-1] - plain.X).max() < 1e-5
