"""The study file: what is read from it, and what is said of a wrong one."""

import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multipert.benchmark.study import Study, StudyModel, read_study
from multipert.benchmark.toml_lines import line_of, lines_of
from multipert.data import DATASETS, Keys, dataset, simulate
from multipert.errors import InputError
from multipert.evaluation import PROFILES, STUDY
from multipert.models import MODELS
from multipert.models.baselines import Additive
from multipert.models.unseen_baselines import UnseenBaseline

ROOT = Path(__file__).parents[2]
PUBLISHED = {
    "mtae", "mtae-adv", "mtae-advg", "mtae-ot", "mtae-plus-ot", "mtvae", "mtvae-ot", "mtvae-plus-ot", "scbutterfly",
    "scgen", "scpregan", "scvidr",
}  # fmt: skip

MODELS_LINE = 'models = ["mtae"]\n'
MADE = '[[datasets]]\nname = "made"\nsimulate = {}\n'
MINE = '[[datasets]]\nname = "mine"\npath = "cells.h5ad"\n'
KEYS = 'perturbation_key = "condition"\ncontrol = "control"\ncontext_key = "cell_type"\n'

Read = Callable[[str], Study]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Reads a text as ``x.toml``, in a folder that holds ``cells.h5ad`` and, for the catalogue, every data set."""
    (tmp_path / "cells.h5ad").touch()
    here = tmp_path / "data"
    here.mkdir()
    for name in DATASETS:
        (here / f"{name}.h5ad").touch()
    monkeypatch.setenv("MULTIPERT_DATA", str(here))
    monkeypatch.setenv("MULTIPERT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)

    def call(text: str) -> Study:
        Path("x.toml").write_text(text, encoding="utf-8")
        return read_study("x.toml")

    return call


def the_toml_in(page: Path) -> list[str]:
    return re.findall(r"^```toml\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def test_the_least_a_study_needs(read: Read) -> None:
    study = read(MODELS_LINE + MADE)
    assert (study.title, study.question, study.seeds) == ("x", "", (1,))
    assert study.metrics == PROFILES["default"].metrics()
    assert study.models == (StudyModel("mtae", "mtae", "default", {}),)
    assert study.text == MODELS_LINE + MADE


def test_a_profile_names_the_metrics(read: Read) -> None:
    assert read("profile = 'study'\n" + MODELS_LINE + MADE).metrics == STUDY


def test_the_example_of_the_docs_means_what_it_says(read: Read, tmp_path: Path) -> None:
    smallest, full = the_toml_in(ROOT / "docs" / "studies.md")
    assert [one.name for one in read(smallest).models] == ["mtae", "mean-shift", "no-change"]

    study = read(full)
    assert study.seeds == (1, 2, 3)
    assert study.metrics == ("edist_vs_control", "pearson_delta", "variance_ratio")
    assert study.models == (
        StudyModel("mtae (default)", "mtae", "default", {}),
        StudyModel("mtae as published", "mtae", "study", {}),
        StudyModel("scgen", "scgen", "default", {"epochs": 30}),
        StudyModel("no-change", "no-change", "default", {}),
    )
    kang, patients, made = study.datasets

    assert (kang.path, kang.published) == (tmp_path / "data" / "kang_subset.h5ad", "kang")
    assert (kang.keys, kang.source) == (
        dataset("kang_subset").keys,
        dataset("kang_subset").title,
    )
    assert (kang.held_out, kang.perturbations, kang.preprocessing) == (("B", "NK"), None, None)

    assert (patients.path, patients.source) == (tmp_path / "cells.h5ad", "cells.h5ad")
    assert patients.keys == Keys(perturbation_key="drug", control="vehicle", context_key="patient")
    assert patients.preprocessing == {"choose_on": "training", "n_top_genes": 2000}
    assert (patients.held_out, patients.perturbations) == (None, ("dexamethasone",))

    assert (made.path, made.source, made.published) == (None, "simulated cells", None)
    assert made.simulated == {"n_genes": 500, "perturbations": ["alpha"], "doses": [0.1, 1, 10], "response": 2.0}
    assert made.keys == Keys(perturbation_key="compound", control="control", context_key="cell_type", dose_key="dose")


@pytest.mark.parametrize(
    "text",
    [
        "other = 1\n",
        MODELS_LINE + MINE + "other = 1\n",
        MODELS_LINE + MINE + "preprocess.other = 1\n",
        MODELS_LINE + MADE + "other = 1\n",
        MODELS_LINE + MADE.replace("{}", "{ other = 1 }"),
    ],
)
def test_the_docs_name_every_key_there_is(read: Read, text: str) -> None:
    page = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
    with pytest.raises(InputError, match="no key 'other'; there are") as caught:
        read(text)
    keys = re.findall(r"'(\w+)'", str(caught.value).partition("there are")[2])
    assert [key for key in keys if f"`{key}`" not in page] == []


@pytest.mark.parametrize(
    ("text", "columns"),
    [("simulate = {}", ["condition", "cell_type"]), ("simulate = { doses = [1, 3] }", ["compound", "dose"])],
)
def test_the_keys_of_simulated_cells_are_columns_of_them(read: Read, text: str, columns: list[str]) -> None:
    dataset = read(f'{MODELS_LINE}[[datasets]]\nname = "made"\n{text}\n').datasets[0]
    assert dataset.simulated is not None
    cells = simulate(**dataset.simulated, n_genes=30, cells_per_group=2)
    named = {dataset.keys.perturbation_key, dataset.keys.context_key, dataset.keys.dose_key} - {None}
    assert named >= set(columns)
    assert named <= set(cells.obs.columns)


def test_what_a_study_says_takes_the_place_of_the_catalogue(read: Read) -> None:
    kang, nault = read(
        MODELS_LINE
        + '[[datasets]]\nname = "kang"\ncontext_key = "donor"\n'
        + '[[datasets]]\nname = "nault"\npreprocess = { n_top_genes = 2000 }\n'
    ).datasets
    assert kang.keys == Keys(perturbation_key="condition", control="control", context_key="donor")
    asked = dataset("nault").preprocessing
    assert asked is not None
    assert nault.preprocessing == {**asked, "n_top_genes": 2000}


@pytest.mark.parametrize(
    ("models", "labels"),
    [
        ('["mtae", "scgen"]', ["mtae", "scgen"]),
        ('["mtae", { name = "mtae", preset = "study" }]', ["mtae (default)", "mtae (study)"]),
        ('["mtae", { name = "mtae", label = "short", epochs = 2 }]', ["mtae (default)", "short"]),
    ],
)
def test_a_model_is_called_by_its_name_unless_that_would_be_unclear(read: Read, models: str, labels: list[str]) -> None:
    assert [one.label for one in read(f"models = {models}\n{MADE}").models] == labels


def test_the_preset_of_the_study_is_that_of_models_without_one(read: Read) -> None:
    study = read(f'preset = "study"\nmodels = ["mtae", {{ name = "scgen", preset = "default" }}]\n{MADE}')
    assert [one.preset for one in study.models] == ["study", "default"]


def test_a_file_from_an_editor_of_windows_is_read(read: Read, tmp_path: Path) -> None:
    (tmp_path / "windows.toml").write_bytes(b"\xef\xbb\xbf" + (MODELS_LINE + MADE).replace("\n", "\r\n").encode())
    assert read_study(tmp_path / "windows.toml").models == read(MODELS_LINE + MADE).models


def test_paths_start_from_the_folder_of_the_study(read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(MODELS_LINE + MINE + KEYS)
    monkeypatch.chdir(ROOT)
    assert read_study(tmp_path / "x.toml").datasets[0].path == tmp_path / "cells.h5ad"


WRONG = {
    "no TOML": ("models = [\n'mtae'\ntitle = 1\n", 3, "this is no TOML: unclosed array"),
    "no TOML, found at the end": ('a = """\nb\n', 2, "this is no TOML"),
    "said twice": ("title = 'a'\ntitle = 'b'\n", 2, "this is no TOML: cannot overwrite"),
    "an unknown key": ("title = 'a'\nmodel = ['mtae']\n", 2, "a study has no key 'model'; did you mean 'models'?"),
    "a number for a text": ("\ntitle = 3\n", 2, "title takes a text in quotes, not 3"),
    "a text for a list": ("models = 'mtae'\n", 1, "models takes a list, each a text in quotes or a table, not 'mtae'"),
    "an empty list": ("seeds = []\n", 1, "seeds is empty"),
    "an empty text": (MODELS_LINE + '[[datasets]]\nname = ""\n', 3, "name is empty"),
    "no models": (MADE, None, "there are no models"),
    "no data sets": (MODELS_LINE, None, "there are no data sets"),
    "an unknown model": ('models = [\n  "mtae",\n  "mtea",\n]\n', 3, "there is no model 'mtea'; did you mean 'mtae'"),
    "an unknown preset of the study": ("preset = 'sturdy'\n" + MODELS_LINE, 1, "'sturdy'; did you mean 'study'?"),
    "an unknown preset of a model": ("models = [\n{ name = 'mtae', preset = 'x' },\n]\n", 2, "no preset 'x'"),
    "an unknown parameter": ("models = [\n{ name = 'scgen', epoch = 3 }]\n", 2, "'epoch'; did you mean 'epochs'"),
    "a parameter out of range": ("[[models]]\nname = 'mtae'\nlatent = 9\ndropout = 1.5\n", 4, "dropout"),
    "a parameter that is no number": ("[[models]]\nname = 'mtae'\nepochs = inf\n", 3, "epochs takes a number"),
    "a parameter of the wrong type": ("[[models]]\nname = 'mtae'\nepochs = 1.5\n", 3, "takes a whole number, not 1.5"),
    "a seed in a model": ("models = [{ name = 'mtae', seed = 3 }]\n", 1, "all models of a study share its seeds"),
    "a model without a name": ("models = [{ epochs = 3 }]\n", 1, "a model needs the name of one"),
    "a model named by a number": ("models = [{ name = 3 }]\n", 1, "name takes a text"),
    "a model named twice": ('models = [\n"mtae",\n"mtae"]\n', 3, "models has 'mtae' twice"),
    "models of one label": (
        "models = [\n{ name = 'mtae', epochs = 2 },\n{ name = 'mtae', epochs = 3 }]\n",
        3,
        "two models are called 'mtae (default)': give this one another label",
    ),
    "a model called like a bound": ("models = [{ name = 'mtae', label = 'floor' }]\n", 1, "'floor' is what a bound is"),
    "an unknown profile": ("profile = 'studdy'\n" + MODELS_LINE, 1, "'studdy'; did you mean 'study'?"),
    "metrics and a profile": ("metrics = ['mse']\nprofile = 'study'\n" + MODELS_LINE, 2, "leave one out"),
    "an unknown metric": ("metrics = ['edist',\n'r2_hgv']\n" + MODELS_LINE, 2, "'r2_hgv'; did you mean 'r2_hvg'?"),
    "a seed twice": (MODELS_LINE + "seeds = [1, 2,\n1]\n", 3, "seeds has 1 twice"),
    "seeds without end": (MODELS_LINE + f"seeds = {list(range(100_000))}\n", 2, "100,000 seeds are more than anybody"),
    "a negative seed": (MODELS_LINE + "seeds = [-1]\n", 2, "seed -1 must be 0 or more"),
    "true for a seed": (MODELS_LINE + "seeds = [true]\n", 2, "seeds takes a list, each a whole number"),
    "one bracket too few": (MODELS_LINE + "[datasets]\nname = 'kang'\n", 2, "each under a header in double brackets"),
    "a data set without a name": (MODELS_LINE + "[[datasets]]\nsimulate = {}\n", 2, "a data set needs a name"),
    "data sets of one name": (MODELS_LINE + MADE + MADE, 6, "two data sets are called 'made'"),
    "an unknown data set": (MODELS_LINE + '[[datasets]]\nname = "kangg"\n', 3, "'kangg'; did you mean 'kang'?"),
    "a file and a simulation": (MODELS_LINE + MINE + "simulate = {}\n", 5, "path and simulate exclude each other"),
    "a file for a name of the catalogue": (
        MODELS_LINE + '[[datasets]]\nname = "kang"\npath = "cells.h5ad"\n',
        4,
        "'kang' is a data set of the catalogue: leave out path",
    ),
    "a file that is not there": (
        MODELS_LINE + MINE.replace("cells", "others"),
        4,
        "others.h5ad: check the path, which starts from the study's folder",
    ),
    "no context key": (MODELS_LINE + MINE, 2, "context_key is missing"),
    "no perturbation": (MODELS_LINE + MINE + 'context_key = "a"\n', 2, "give perturbation_key, dose_key or both"),
    "no control": (MODELS_LINE + MINE + 'context_key = "a"\nperturbation_key = "b"\n', 2, "control is missing"),
    "an unknown key of a data set": (MODELS_LINE + MINE + "contextkey = 'a'\n", 5, "did you mean 'context_key'?"),
    "a key of simulated cells": (MODELS_LINE + MADE + 'context_key = "a"\n', 5, "a simulated data set has no key"),
    "an unknown argument of the simulator": (
        MODELS_LINE + '[[datasets]]\nname = "made"\n[datasets.simulate]\nseed = 1\ngenes = 3\n',
        6,
        "simulate has no key 'genes'; did you mean 'n_genes'?",
    ),
    "a world that cannot be": (
        MODELS_LINE + '[[datasets]]\nname = "made"\n[datasets.simulate]\nseed = 1\nn_genes = 3\n',
        6,
        "n_genes is 3: at least 20",
    ),
    "a group without cells": (MODELS_LINE + MADE.replace("{}", "{ cells_per_group = 0 }"), 4, "every group needs"),
    "more than the most": (
        MODELS_LINE + MADE.replace("{}", "{ cells_per_group = [9, 3] }"),
        4,
        "cells_per_group goes from the fewest to the most, not from 9 to 3",
    ),
    "cells without end": (
        MODELS_LINE + MADE.replace("{}", "{ cells_per_group = 100_000_000 }"),
        4,
        "more than can be drawn: lower cells_per_group",
    ),
    "a path that cannot be": (MODELS_LINE + MINE.replace("cells.h5ad", "\\u0000") + KEYS, 4, "is no path"),
    "a wrong type for the simulator": (
        MODELS_LINE + MADE.replace("{}", "{ cells_per_group = 'many' }"),
        4,
        "takes a whole number or a list of a whole number and a whole number, not 'many'",
    ),
    "an unknown argument of preprocessing": (
        MODELS_LINE + MINE + KEYS + "preprocess = { top_genes = 3 }\n",
        8,
        "preprocess has no key 'top_genes'; did you mean 'n_top_genes'?",
    ),
    "cells to choose genes on": (
        MODELS_LINE + MINE + KEYS + "[datasets.preprocess]\nchoose_on = 'some'\n",
        9,
        "choose_on takes 'training' or 'all', not 'some'",
    ),
    "no genes to keep": (MODELS_LINE + MINE + KEYS + "preprocess.n_top_genes = 0\n", 8, "must be 1 or more, not 0"),
    "a layer beside preprocessing": (
        MODELS_LINE + MINE + KEYS + "layer = 'counts'\npreprocess = {}\n",
        8,
        "give the layer of counts as layer inside preprocess",
    ),
    "a context twice": (MODELS_LINE + MADE + "held_out = ['A',\n'B', 'A']\n", 6, "held_out has 'A' twice"),
    "a context by its number": (MODELS_LINE + MADE + "held_out = [1]\n", 5, "held_out takes a list, each a text"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_said_with_its_line(read: Read, wrong: str) -> None:
    text, line, sentence = WRONG[wrong]
    with pytest.raises(InputError) as caught:
        read(text)
    said = str(caught.value)
    assert said.startswith("x.toml: " if line is None else f"x.toml, line {line}: "), said
    assert sentence in said, said
    assert "\n" not in said


def test_data_that_are_not_here_are_named_with_how_to_get_them(
    read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULTIPERT_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"^x\.toml, line 3: kang is not .*multipert datasets fetch kang"):
        read(MODELS_LINE + '[[datasets]]\nname = "kang"\n')


def test_a_study_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no study file .*nowhere\.toml: check the path"):
        read_study(tmp_path / "nowhere.toml")
    with pytest.raises(InputError, match="cannot read the study file"):
        read_study(tmp_path)
    (tmp_path / "latin.toml").write_bytes("title = 'Zürich'".encode("latin-1"))
    with pytest.raises(InputError, match="is no text in UTF-8"):
        read_study(tmp_path / "latin.toml")


def test_a_study_says_where_its_values_stand(read: Read) -> None:
    study = read(MODELS_LINE + MADE + 'held_out = [\n  "A",\n  "Z",\n]\n')
    assert study.where("datasets", 0, "held_out") == "x.toml, line 5"
    assert study.where("datasets", 0, "held_out", 1) == "x.toml, line 7"
    assert study.where("datasets", 0, "perturbations") == "x.toml, line 2"  # not written down: the data set
    assert study.where("seeds") == "x.toml"


@pytest.mark.parametrize("name", ["kang", "nault", "hagai"])
def test_the_studies_of_the_published_tables(read: Read, name: str) -> None:
    study = read_study(ROOT / "studies" / f"{name}.toml")
    wanted = PUBLISHED | ({"scvidr-dose"} if name == "nault" else set())
    assert {one.name for one in study.models} == wanted
    assert {one.preset for one in study.models} == {"study"}
    assert study.seeds == (1, 2, 19193)
    (dataset,) = study.datasets
    assert dataset.published == name
    assert (dataset.held_out, dataset.perturbations) == (None, None)
    assert (dataset.preprocessing or {}).get("choose_on") == ("all" if name == "nault" else None)


@pytest.mark.parametrize("name", ["kang_subset", "mcfaline_subset"])
def test_the_studies_of_the_subsets_compare_all_models(read: Read, name: str) -> None:
    study = read_study(ROOT / "studies" / f"{name}.toml")
    # In a held-out context the baselines of unseen perturbations are the mean shift or the nearest context.
    models = {name for name, one in MODELS.items() if not issubclass(one, Additive | UnseenBaseline)}
    assert {(one.name, one.preset, one.label) for one in study.models} == {(one, "default", one) for one in models}
    assert study.seeds == (1,)
    assert [one.name for one in study.datasets] == [name]


def test_the_demo_needs_no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIPERT_DATA", str(tmp_path))
    study = read_study(ROOT / "studies" / "demo.toml")
    assert [one.path for one in study.datasets] == [None, None]
    assert [one.keys.dose_key for one in study.datasets] == [None, "dose"]


def test_every_study_that_ships_is_in_the_docs() -> None:
    page = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")
    for path in (ROOT / "studies").iterdir():
        assert f"`studies/{path.name}`" in page


HARD = r"""
title = "a # no comment" # x = 1
x.y.'dotted.key'."esc\"aped" = -3.5e+1
day = 1979-05-27 07:32:00
text = DOUBLE
[not-a-table]
q = 1 ""\DOUBLE ""DOUBLE
raw = SINGLE
]} # 'SINGLE
[[a]]
name = "x" # [[a]]
inline = { n = 1, list = [1,
 2.5, { p.q = "}" }], empty = {} }
[a.sub]
"with space" = true
[[a.deep]]
k = 1
[[a.deep]]
k = 2
[[a]]
many = [ # c
  "one",
  ['x', []],  {name = "q"}, # "no"
]
[a.sub.below]
[other]
end = 1""".replace("DOUBLE", '"' * 3).replace("SINGLE", "'" * 3)


def places(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        yield (*place, key)
        yield from places(one, (*place, key))


def test_every_value_of_a_hard_text_has_a_line_of_its_own() -> None:
    lines = lines_of(HARD)
    assert set(lines) == set(places(tomllib.loads(HARD)))
    written = HARD.splitlines()
    starts = {
        ("title",): "title",
        ("x", "y", "dotted.key", 'esc"aped'): "x.y",
        ("day",): "day",
        ("text",): "text",
        ("raw",): "raw",
        ("a",): "[[a]]",
        ("a", 0, "inline", "n"): "inline",
        ("a", 0, "inline", "list", 2, "p", "q"): " 2.5",
        ("a", 0, "sub"): "[a.sub]",
        ("a", 0, "sub", "with space"): '"with space"',
        ("a", 0, "deep", 0, "k"): "k = 1",
        ("a", 0, "deep", 1, "k"): "k = 2",
        ("a", 1, "many"): "many",
        ("a", 1, "many", 0): '  "one"',
        ("a", 1, "many", 1, 1): "  ['x'",
        ("a", 1, "sub", "below"): "[a.sub.below]",
        ("other", "end"): "end",
    }
    for place, start in starts.items():
        assert written[lines[place] - 1].startswith(start), place
    assert lines["a", 1] > lines["a", 0, "deep", 1]


@given(st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8), min_size=1, max_size=6))
def test_texts_are_no_obstacle(texts: list[str]) -> None:
    quoted = ['"' + one.replace("\\", "\\\\").replace('"', '\\"') + '"' for one in texts]
    toml = "all = [\n" + ",\n".join(quoted) + "\n]\nlast = 1\n"
    assert tomllib.loads(toml)["all"] == texts
    assert [line_of(toml, ("all", index)) for index in range(len(texts))] == list(range(2, len(texts) + 2))
    assert line_of(toml, ("last",)) == len(texts) + 3
