"""``multipert datasets``: what it lists, and how a dataset gets here."""

import dataclasses
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import multipert as mp
from conftest import Run
from multipert.data import DATASETS, Part, write_cells


@pytest.fixture
def run(run: Run) -> Run:
    """The command with its first word said."""
    return lambda *arguments: run("datasets", *arguments)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MULTIPERT_DATA", raising=False)
    monkeypatch.setenv("MULTIPERT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.h5ad"
    write_cells(mp.simulate(n_genes=20, contexts=("A", "B"), perturbations=("alpha",), cells_per_group=5), path)
    return path


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    http.server_close()
    thread.join()


def test_the_list_says_what_is_here_and_where_to_get_the_rest(run: Run, cache: Path) -> None:
    cache.mkdir()
    (cache / "kang.h5ad").touch()

    code, out, _ = run()

    assert code == 0
    rows = out.splitlines()
    assert [row.split()[0] for row in rows[1:8]] == list(DATASETS)
    for row, one in zip(rows[1:8], DATASETS.values(), strict=True):
        assert one.title in row
        assert one.size in row
    here = rows[0].index("here")
    assert rows[1][here:].split()[0] == str(cache / "kang.h5ad")
    assert {row[here:].split()[0] for row in rows[2:8]} == {"no"}
    get = rows[0].index("get it")
    assert [row[get:].strip() for row in rows[1:8]] == ["fetch", "by hand", "fetch", "fetch", *["by hand"] * 3]
    assert "`multipert datasets fetch NAME`" in out


def test_one_dataset_is_printed_in_full(run: Run) -> None:
    code, out, _ = run("kang")
    assert code == 0
    assert "--perturbation-key condition --control control --context-key cell_type" in out
    assert all(part.url in out for part in DATASETS["kang"].parts)
    assert run("show", "kang")[1] == out
    code, out, _ = run("nault")
    assert code == 0
    assert "--dose-key Dose --compound TCDD --context-key celltype" in out
    assert "n_top_genes=5000" in out
    assert DATASETS["nault"].manual in out


@pytest.mark.parametrize("arguments", [("kan",), ("fetch", "kan"), ("fetch", "kan", "--from", "x.h5ad")])
def test_an_unknown_dataset_is_answered(run: Run, arguments: tuple[str, ...]) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert "there is no dataset 'kan' in the catalogue; did you mean 'kang'?" in err
    assert len(err.strip().splitlines()) == 1


def test_a_dataset_is_downloaded_once(
    run: Run, server: str, file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = dataclasses.replace(DATASETS["kang_subset"], parts=(Part(f"{server}/mine.h5ad", "mine.h5ad"),))
    monkeypatch.setitem(DATASETS, "kang_subset", one)

    code, out, err = run("fetch", "kang_subset")

    assert code == 0
    assert out == f"downloaded kang_subset: {cache / 'kang_subset.h5ad'}\n"
    assert "mine.h5ad: 0." in err
    assert (cache / "kang_subset.h5ad").read_bytes() == file.read_bytes()
    assert run("fetch", "kang_subset") == (0, f"kang_subset is here already: {cache / 'kang_subset.h5ad'}\n", "")


def test_a_download_that_fails_ends_with_one_sentence(run: Run, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = dataclasses.replace(DATASETS["kang_subset"], parts=(Part(f"{server}/absent.h5ad", "absent.h5ad"),))
    monkeypatch.setitem(DATASETS, "kang_subset", one)
    code, out, err = run("fetch", "kang_subset")
    assert (code, out) == (2, "")
    assert f"{server}/absent.h5ad answers 404" in err
    assert "multipert datasets fetch kang_subset --from FILE" in err
    assert len(err.strip().splitlines()) == 1


def test_a_download_can_be_stopped(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("multipert.data.cache.download", stop)
    code, out, err = run("fetch", "kang")
    assert (code, out) == (1, "")
    assert "the same command goes on from there" in err


def test_a_local_copy_is_registered(run: Run, file: Path, cache: Path) -> None:
    assert run("fetch", "kang", "--from", file) == (0, f"registered kang: {cache / 'kang.h5ad'}\n", "")
    assert (cache / "kang.h5ad").read_bytes() == file.read_bytes()


@pytest.mark.parametrize("between", [(), ("--from",)])
def test_local_parts_are_registered(run: Run, file: Path, cache: Path, between: tuple[str, ...]) -> None:
    code, _, _ = run("fetch", "kang", "--from", file, *between, file)
    assert code == 0
    assert mp.PerturbationData.from_anndata(
        cache / "kang.h5ad", perturbation_key="condition", control="control", context_key="cell_type"
    ).X.shape == (40, 20)


def test_a_copy_behind_the_data_folder_is_said(
    run: Run, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULTIPERT_DATA", str(tmp_path))
    (tmp_path / "kang.h5ad").touch()
    code, _, err = run("fetch", "kang", "--from", file)
    assert code == 0
    assert f"{tmp_path / 'kang.h5ad'} goes before it" in err


def test_a_wrong_file_is_refused_in_one_sentence(run: Run, file: Path) -> None:
    code, _, err = run("fetch", "hagai", "--from", file)
    assert code == 2
    assert f"{file} does not read as hagai: the context key 'species' is not a column of obs; there are" in err
    assert len(err.strip().splitlines()) == 1


def test_files_without_from_are_answered(run: Run, file: Path) -> None:
    code, _, err = run("fetch", "kang", file)
    assert code == 2
    assert f"say --from: multipert datasets fetch kang --from {file}" in err


def test_what_cannot_be_downloaded_is_answered(run: Run) -> None:
    code, _, err = run("fetch", "mcfaline_subset")
    assert code == 2
    assert "mcfaline_subset cannot be downloaded by itself" in err
