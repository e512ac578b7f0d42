"""The catalogue, and downloads from a server of this machine's own."""

import dataclasses
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from multipert.data import (
    DATASETS,
    Keys,
    Part,
    PerturbationData,
    cache_folder,
    dataset,
    fetch,
    find,
    locate,
    preprocess,
    read_cells,
    register,
    write_cells,
)
from multipert.data.catalogue import Dataset
from multipert.errors import InputError


class Server:
    """Serves bytes by path; can be told to break off, to know no ranges, and to answer something else."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.versions: dict[str, str] = {}
        self.ranges = True
        self.cut: int | None = None
        self.asked: list[tuple[str, str | None]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path, wanted = request.path, request.headers.get("Range")
        self.asked.append((path.partition("?")[0], wanted))
        if path.startswith("/moved"):
            request.send_response(302)
            request.send_header("Location", path.removeprefix("/moved"))
            request.end_headers()
            return
        content = self.files.get(path.partition("?")[0])
        if content is None:
            request.send_error(404)
            return
        version = self.versions.get(path)
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.ranges else 0
        if request.headers.get("If-Range", version) != version:
            start = 0
        if start >= len(content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(content)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if version:
            request.send_header("ETag", version)
        request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        request.wfile.write(content[start : self.cut])
        self.cut = None


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MULTIPERT_DATA", raising=False)
    monkeypatch.setenv("MULTIPERT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("multipert.data.downloads._CHUNK", 1000)
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def parts(cells: AnnData, tmp_path: Path) -> list[Path]:
    """Every third cell in one file, with a column more and the genes in another order; the rest in another."""
    third = np.arange(cells.n_obs) % 3 == 0
    train, valid = cells[~third].copy(), cells[third].copy()[:, ::-1].copy()
    valid.obs["batch"] = "v"
    for name, part in (("train_pbmc", train), ("valid_pbmc", valid)):
        write_cells(part, tmp_path / f"{name}.h5ad")
    return [tmp_path / "train_pbmc.h5ad", tmp_path / "valid_pbmc.h5ad"]


def point(monkeypatch: pytest.MonkeyPatch, name: str, *urls: str) -> None:
    """Publish the parts of a dataset elsewhere."""
    changed = [dataclasses.replace(part, url=url) for part, url in zip(DATASETS[name].parts, urls, strict=True)]
    monkeypatch.setitem(DATASETS, name, dataclasses.replace(DATASETS[name], parts=tuple(changed)))


@pytest.fixture
def kang(server: Server, parts: list[Path], monkeypatch: pytest.MonkeyPatch) -> Dataset:
    for path in parts:
        server.files[f"/{path.name}"] = path.read_bytes()
    point(monkeypatch, "kang", *(f"{server.url}/{path.name}" for path in parts))
    return DATASETS["kang"]


@pytest.fixture
def subset(server: Server, parts: list[Path], monkeypatch: pytest.MonkeyPatch) -> bytes:
    content = parts[1].read_bytes()
    server.files["/valid.h5ad"] = content
    point(monkeypatch, "kang_subset", f"{server.url}/valid.h5ad")
    return content


def test_the_catalogue_says_what_a_study_needs() -> None:
    subsets = ["kang_subset", "mcfaline_subset", "norman_subset", "tal1_counts"]
    assert list(DATASETS) == ["kang", "nault", "hagai", *subsets]
    assert dataset("nault").keys == Keys(context_key="celltype", dose_key="Dose", compound="TCDD")
    assert (dataset("hagai").keys.control, dataset("hagai").keys.context_key) == ("unst", "species")
    assert {one.name: one.published for one in DATASETS.values()} == {
        "kang": "kang",
        "nault": "nault",
        "hagai": "hagai",
        "kang_subset": "kang",
        "mcfaline_subset": None,
        "norman_subset": None,
        "tal1_counts": None,
    }
    for one in DATASETS.values():
        assert bool(one.parts) != bool(one.manual)
        assert all(part.url.startswith("https://") for part in one.parts)
    assert DATASETS["kang_subset"].parts == DATASETS["kang"].parts[1:]


@pytest.mark.parametrize("name", ["kang_subset", "mcfaline_subset", "norman_subset", "tal1_counts"])
def test_the_catalogue_fits_the_cells_that_are_here(
    name: str, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULTIPERT_DATA", str(data_folder))
    one = dataset(name)

    cells = read_cells(locate(name))
    assert one.size == f"{cells.n_obs:,} cells x {cells.n_vars:,} genes"
    data = PerturbationData.read(preprocess(cells) if one.preprocessing else cells, one.keys)

    assert data.contexts == one.contexts
    assert len(data) > 0.99 * cells.n_obs


def test_an_unknown_name_is_answered_with_those_there_are() -> None:
    for call in (dataset, find, locate, fetch):
        with pytest.raises(InputError, match=r"there is no dataset 'kan' in the catalogue; did you mean 'kang'\?"):
            call("kan")


def test_the_data_folder_goes_before_the_cache(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find("kang") is None
    cache.mkdir()
    (cache / "kang.h5ad").touch()
    assert find("kang") == cache / "kang.h5ad"
    monkeypatch.setenv("MULTIPERT_DATA", str(tmp_path))
    assert find("kang") == cache / "kang.h5ad"
    (tmp_path / "kang.h5ad").touch()
    assert locate("kang") == find("kang") == tmp_path / "kang.h5ad"


def test_the_cache_is_where_the_system_keeps_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MULTIPERT_CACHE")
    assert cache_folder().is_absolute()
    assert "multipert" in str(cache_folder())


def test_what_is_not_here_is_answered_with_what_to_do(cache: Path) -> None:
    with pytest.raises(InputError) as said:
        locate("kang")
    assert f"no kang.h5ad in {cache}" in str(said.value)
    assert "run `multipert datasets fetch kang`" in str(said.value)
    assert "--from train_pbmc.h5ad valid_pbmc.h5ad" in str(said.value)
    with pytest.raises(InputError, match="GSE184506.* --from FILE`"):
        locate("nault")


def test_parts_are_downloaded_and_put_together(
    kang: Dataset, cells: AnnData, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = fetch("kang")

    assert path == cache / "kang.h5ad" == find("kang")
    assert sorted(os.listdir(cache)) == ["checksums.json", "kang.h5ad"]
    got = read_cells(path)
    assert got.var_names.tolist() == cells.var_names.tolist()
    rows = [row for row in range(cells.n_obs) if row % 3] + list(range(0, cells.n_obs, 3))
    expected = cells[rows]
    assert got.obs_names.tolist() == expected.obs_names.tolist()
    assert abs(got.X - expected.X).max() == 0
    assert got.obs["condition"].tolist() == expected.obs["condition"].tolist()
    assert got.obs["batch"].isna().sum() == got.obs["batch"].size - len(range(0, cells.n_obs, 3))
    size = len((cache.parent / "valid_pbmc.h5ad").read_bytes()) / 1e6
    err = capfd.readouterr().err
    assert err.splitlines()[-1] == f"valid_pbmc.h5ad: {size:.1f} of {size:.1f} MB"
    assert "train_pbmc.h5ad: downloading" in err


def test_a_single_file_stays_as_it_was_published(subset: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    assert fetch("kang_subset", progress=False).read_bytes() == subset
    assert capfd.readouterr() == ("", "")


def test_what_is_here_is_not_downloaded_again(kang: Dataset, server: Server) -> None:
    first = fetch("kang", progress=False)
    server.asked.clear()

    assert fetch("kang", progress=False) == first
    assert server.asked == []


def test_redirects_are_followed(server: Server, subset: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    point(monkeypatch, "kang_subset", f"{server.url}/moved/valid.h5ad?dl=1")
    assert fetch("kang_subset", progress=False).read_bytes() == subset


def test_the_first_download_records_the_checksum_and_the_next_must_match(
    server: Server, subset: bytes, cache: Path, cells: AnnData, tmp_path: Path
) -> None:
    path = fetch("kang_subset", progress=False)
    url = f"{server.url}/valid.h5ad"
    assert json.loads((cache / "checksums.json").read_text()) == {url: hashlib.sha256(subset).hexdigest()}
    path.unlink()
    assert fetch("kang_subset", progress=False).read_bytes() == subset

    path.unlink()
    write_cells(cells, tmp_path / "other.h5ad")
    server.files["/valid.h5ad"] = (tmp_path / "other.h5ad").read_bytes()
    for _ in range(2):
        with pytest.raises(InputError, match=f"{url} sends another file than at first .*remove .*checksums.json"):
            fetch("kang_subset", progress=False)
        assert find("kang_subset") is None

    (cache / "checksums.json").unlink()
    assert fetch("kang_subset", progress=False).read_bytes() == server.files["/valid.h5ad"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_breaks_off_goes_on(
    server: Server, subset: bytes, cache: Path, ranges: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    server.cut = 5000
    with pytest.raises(InputError, match=r"valid.h5ad broke off after 0\.0 of .* MB: run the same command again"):
        fetch("kang_subset", progress=False)
    assert find("kang_subset") is None
    partial = cache / "kang_subset.parts" / "valid_pbmc.h5ad.part"
    assert partial.read_bytes() == subset[:5000]

    server.ranges = ranges
    assert fetch("kang_subset").read_bytes() == subset
    assert server.asked == [("/valid.h5ad", None), ("/valid.h5ad", "bytes=5000-")]
    assert ("going on from" in capfd.readouterr().err) == ranges
    assert not partial.parent.exists()


def test_only_the_part_that_is_missing_is_downloaded_again(kang: Dataset, server: Server) -> None:
    valid = server.files.pop("/valid_pbmc.h5ad")
    with pytest.raises(InputError, match="404"):
        fetch("kang", progress=False)
    server.files["/valid_pbmc.h5ad"] = valid
    server.asked.clear()

    fetch("kang", progress=False)

    assert server.asked == [("/valid_pbmc.h5ad", None)]


def test_two_versions_of_a_file_are_never_mixed(server: Server, subset: bytes, parts: list[Path]) -> None:
    server.versions["/valid.h5ad"] = '"one"'
    server.cut = 5000
    with pytest.raises(InputError, match="broke off"):
        fetch("kang_subset", progress=False)
    server.files["/valid.h5ad"] = parts[0].read_bytes()
    server.versions["/valid.h5ad"] = '"two"'

    assert fetch("kang_subset", progress=False).read_bytes() == parts[0].read_bytes()


def test_a_partial_file_that_is_whole_is_taken(server: Server, subset: bytes, cache: Path) -> None:
    (cache / "kang_subset.parts").mkdir(parents=True)
    (cache / "kang_subset.parts" / "valid_pbmc.h5ad.part").write_bytes(subset)
    assert fetch("kang_subset", progress=False).read_bytes() == subset


def test_a_partial_file_that_is_too_long_is_begun_anew(server: Server, subset: bytes, cache: Path) -> None:
    (cache / "kang_subset.parts").mkdir(parents=True)
    (cache / "kang_subset.parts" / "valid_pbmc.h5ad.part").write_bytes(subset + b"more")
    assert fetch("kang_subset", progress=False).read_bytes() == subset


def test_a_file_that_is_gone_is_said(kang: Dataset, server: Server) -> None:
    server.files.clear()
    with pytest.raises(InputError) as said:
        fetch("kang", progress=False)
    urls = [part.url for part in kang.parts]
    assert str(said.value) == (
        f"{urls[0]} answers 404 Not Found: try again later, or download by hand from {urls[0]} and {urls[1]} and run "
        "`multipert datasets fetch kang --from train_pbmc.h5ad valid_pbmc.h5ad`"
    )


def test_no_network_is_said(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{server.url.rpartition(':')[0]}:1/valid.h5ad"  # nobody listens at port 1
    point(monkeypatch, "kang_subset", url)
    with pytest.raises(InputError) as said:
        fetch("kang_subset", progress=False)
    assert str(said.value) == (
        f"127.0.0.1:1 cannot be reached, so {url} could not be downloaded: try again with a network, or download by "
        f"hand from {url} and run `multipert datasets fetch kang_subset --from FILE`"
    )


def test_a_silent_server_is_not_waited_for(server: Server, subset: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("multipert.data.downloads.TIMEOUT", 0.1)
    monkeypatch.setattr(server, "answer", lambda request: time.sleep(0.5))
    with pytest.raises(InputError, match=r"127.0.0.1:\d+ did not answer in 0.1 s, so .* could not be downloaded"):
        fetch("kang_subset", progress=False)


def test_a_page_in_place_of_the_file_is_refused_and_not_kept(server: Server, subset: bytes, cache: Path) -> None:
    server.files["/valid.h5ad"] = b"<html>This link is no longer shared.</html>"
    with pytest.raises(InputError, match="sent something that is no h5ad file"):
        fetch("kang_subset", progress=False)
    server.files["/valid.h5ad"] = subset
    assert fetch("kang_subset", progress=False).read_bytes() == subset


def test_another_dataset_in_place_of_the_file_is_refused_and_not_kept(
    server: Server, subset: bytes, cells: AnnData, tmp_path: Path, cache: Path
) -> None:
    cells.obs = cells.obs.rename(columns={"condition": "treatment"})
    write_cells(cells, tmp_path / "other.h5ad")
    server.files["/valid.h5ad"] = (tmp_path / "other.h5ad").read_bytes()
    with pytest.raises(InputError, match="what was downloaded is not kang_subset .*'condition' is not a column of obs"):
        fetch("kang_subset", progress=False)
    assert not (cache / "checksums.json").exists()
    server.files["/valid.h5ad"] = subset
    assert fetch("kang_subset", progress=False).read_bytes() == subset


def test_a_full_disk_is_said_and_what_came_is_kept(
    server: Server, subset: bytes, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as during:
        during.setattr("shutil.copyfile", full)
        with pytest.raises(InputError, match=f"cannot write in {cache}: the disk is full: make room and run it again"):
            fetch("kang_subset", progress=False)
    assert find("kang_subset") is None
    server.asked.clear()
    assert fetch("kang_subset", progress=False).read_bytes() == subset
    assert server.asked == []


def test_a_cache_that_cannot_be_made_is_said(subset: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MULTIPERT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(InputError, match="Not a directory: mend that, or choose another folder with MULTIPERT_CACHE"):
        fetch("kang_subset", progress=False)


def test_damaged_checksums_are_said(subset: bytes, cache: Path) -> None:
    cache.mkdir()
    (cache / "checksums.json").write_text("{")
    with pytest.raises(InputError, match=r"checksums\.json cannot be read .*: remove it"):
        fetch("kang_subset", progress=False)


@pytest.mark.skipif(sys.platform == "win32", reason="needs file locks")
def test_two_downloads_of_a_file_do_not_meet(server: Server, subset: bytes, cache: Path) -> None:
    import fcntl

    (cache / "kang_subset.parts").mkdir(parents=True)
    with open(cache / "kang_subset.parts" / "valid_pbmc.h5ad.part", "ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match=r"another process is downloading valid_pbmc\.h5ad: wait"):
            fetch("kang_subset", progress=False)
    assert fetch("kang_subset", progress=False).read_bytes() == subset


def test_a_killed_download_leaves_only_what_it_goes_on_from(
    server: Server, subset: bytes, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real process, stopped while the server takes its time."""
    half, whole, stopped = len(subset) // 2, server.answer, Event()

    def slowly(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(subset)))
        request.end_headers()
        request.wfile.write(subset[:half])
        stopped.wait(60)

    script = (
        "import dataclasses; from multipert.data import DATASETS, Part, fetch; one = DATASETS['kang_subset'];"
        f"DATASETS['kang_subset'] = dataclasses.replace(one, parts=(Part('{server.url}/valid.h5ad', 'v.h5ad'),));"
        "import multipert.data.downloads as downloads; downloads._CHUNK = 1000; fetch('kang_subset')"
    )
    server.answer = slowly  # type: ignore[method-assign]
    process = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
    partial = cache / "kang_subset.parts" / "v.h5ad.part"
    deadline = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=30)
    stopped.set()
    assert process.returncode != 0
    assert find("kang_subset") is None
    kept = partial.read_bytes()
    assert 0 < len(kept) <= half
    assert subset.startswith(kept)

    server.answer = whole  # type: ignore[method-assign]
    point(monkeypatch, "kang_subset", f"{server.url}/valid.h5ad")
    one = DATASETS["kang_subset"]
    moved = dataclasses.replace(one, parts=(Part(one.parts[0].url, "v.h5ad"),))
    monkeypatch.setitem(DATASETS, "kang_subset", moved)
    assert fetch("kang_subset", progress=False).read_bytes() == subset
    assert server.asked == [("/valid.h5ad", f"bytes={len(kept)}-")]


@pytest.mark.parametrize("name", ["nault", "mcfaline_subset"])
def test_what_cannot_be_downloaded_is_answered_with_how_to_get_it(name: str, cache: Path) -> None:
    with pytest.raises(InputError) as said:
        fetch(name)
    assert f"{name} cannot be downloaded by itself: {DATASETS[name].manual}" in str(said.value)
    assert f"`multipert datasets fetch {name} --from FILE`" in str(said.value)
    assert not cache.exists()


def test_local_parts_are_put_together_in_the_published_order(parts: list[Path], kang: Dataset) -> None:
    downloaded = read_cells(fetch("kang", progress=False))

    registered = read_cells(register("kang", parts[::-1]))

    pd.testing.assert_frame_equal(registered.obs, downloaded.obs)
    assert abs(registered.X - downloaded.X).max() == 0


def test_local_files_of_other_names_are_put_together_as_given(parts: list[Path], cells: AnnData) -> None:
    for path in parts:
        path.rename(path.with_name(f"my_{path.name}"))
    path = register("kang", [parts[1].with_name("my_valid_pbmc.h5ad"), parts[0].with_name("my_train_pbmc.h5ad")])
    assert read_cells(path).obs_names[0] == cells.obs_names[0]
    assert read_cells(path).obs_names[1] == cells.obs_names[3]


def test_a_local_file_that_holds_all_is_copied_as_it_is(cells: AnnData, tmp_path: Path, cache: Path) -> None:
    write_cells(cells, tmp_path / "mine.h5ad")
    path = register("kang", [tmp_path / "mine.h5ad"])
    assert path == find("kang") == cache / "kang.h5ad"
    assert path.read_bytes() == (tmp_path / "mine.h5ad").read_bytes()
    assert os.listdir(cache) == ["kang.h5ad"]
    assert register("kang", [path]).read_bytes() == (tmp_path / "mine.h5ad").read_bytes()


def test_doses_are_checked_as_doses(cells: AnnData, tmp_path: Path) -> None:
    cells.obs["celltype"] = cells.obs["cell_type"]
    cells.obs["Dose"] = [0.0 if one == "control" else 0.3 for one in cells.obs["condition"]]
    write_cells(cells, tmp_path / "liver.h5ad")
    assert register("nault", [tmp_path / "liver.h5ad"]).name == "nault.h5ad"
    cells.obs["Dose"] = 0.3
    write_cells(cells, tmp_path / "liver.h5ad")
    with pytest.raises(InputError, match=r"liver\.h5ad does not read as nault: no cell is at dose 0"):
        register("nault", [tmp_path / "liver.h5ad"])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["mcfaline.h5ad"],
            r"mcfaline\.h5ad does not read as kang: the .* 'condition' is not a column of obs; there are",
        ),
        (["text.h5ad"], r"text\.h5ad is no h5ad file"),
        (["absent.h5ad"], r"absent\.h5ad does not exist"),
        (["cut.h5ad"], r"cut\.h5ad is truncated or damaged"),
        (["no_genes.h5ad"], "no_genes.h5ad does not read as kang: there are no genes in it"),
        (
            ["valid_pbmc.h5ad"],
            "valid_pbmc.h5ad is called as only a part of kang: give the 2 files train_pbmc.h5ad, val",
        ),
        (["train_pbmc.h5ad", "few.h5ad"], r"few\.h5ad and .*train_pbmc\.h5ad differ in 3 genes"),
        (["a.h5ad", "b.h5ad", "c.h5ad"], "3 files are given as kang: give the 2 files"),
    ],
)
def test_a_wrong_local_file_is_refused(
    parts: list[Path], cells: AnnData, tmp_path: Path, cache: Path, files: list[str], message: str
) -> None:
    others = cells.copy()
    others.obs = others.obs.rename(columns={"condition": "perturbation"})
    write_cells(others, tmp_path / "mcfaline.h5ad")
    (tmp_path / "text.h5ad").write_text("cells")
    (tmp_path / "cut.h5ad").write_bytes(parts[0].read_bytes()[:20_000])
    write_cells(cells[:, :0], tmp_path / "no_genes.h5ad")
    write_cells(cells[:, 3:], tmp_path / "few.h5ad")

    with pytest.raises(InputError, match=message):
        register("kang", [tmp_path / file for file in files])

    assert not (cache / "kang.h5ad").exists()


@pytest.mark.filterwarnings("ignore::anndata.OldFormatWarning")
def test_the_old_layout_of_h5ad_is_read(cells: AnnData, tmp_path: Path) -> None:
    """The published files date from before anndata 0.7: obs and var are tables in one piece."""
    write_cells(cells, tmp_path / "new.h5ad")
    path = tmp_path / "old.h5ad"
    obs = np.array(
        list(zip(cells.obs_names, cells.obs["condition"], cells.obs["cell_type"], strict=True)),
        dtype=[("index", "S40"), ("condition", "S40"), ("cell_type", "S40")],
    )
    with h5py.File(path, "w") as file:
        file["obs"] = obs
        file["var"] = np.array([(name,) for name in cells.var_names], dtype=[("index", "S40")])
        file["X"] = cells.X.toarray()

    got = read_cells(register("kang", [path, tmp_path / "new.h5ad"]))

    assert got.shape == (2 * cells.n_obs, cells.n_vars)
    assert got.obs["condition"].tolist() == 2 * cells.obs["condition"].tolist()
    assert ad.read_h5ad(register("kang", [path])).n_obs == cells.n_obs


def test_the_catalogue_is_read_without_torch_and_scanpy() -> None:
    script = "import multipert.data, sys; print([m for m in ('torch', 'scanpy', 'requests') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
