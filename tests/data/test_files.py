import os
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from anndata import AnnData

from multipert.data import (
    PerturbationData,
    atomic_path,
    check_writable,
    hdf5_check,
    read_cells,
    write_cells,
    write_text,
)
from multipert.errors import InputError


def test_what_is_written_is_read_back(tmp_path: Path, cells: AnnData) -> None:
    write_cells(cells, tmp_path / "cells.h5ad")

    read = read_cells(str(tmp_path / "cells.h5ad"))

    assert (read.X != cells.X).nnz == 0
    assert read.obs["condition"].tolist() == cells.obs["condition"].tolist()
    assert os.listdir(tmp_path) == ["cells.h5ad"]


def test_an_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.h5ad does not exist: check the path"):
        read_cells(tmp_path / "absent.h5ad")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder: name the h5ad file itself"):
        read_cells(tmp_path)


@pytest.mark.parametrize("content", ["", "cell,gene\n1,2\n"])
def test_a_file_that_is_no_h5ad_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "cells.h5ad").write_text(content)

    with pytest.raises(InputError, match=r"cells\.h5ad is no h5ad file: write one with"):
        read_cells(tmp_path / "cells.h5ad")


@pytest.mark.filterwarnings("ignore:Element")
def test_an_hdf5_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "cells.h5ad", "w") as file:
        file["matrix"] = np.zeros(3)

    with pytest.raises(InputError, match="is an HDF5 file but no h5ad"):
        read_cells(tmp_path / "cells.h5ad")


@pytest.mark.parametrize("kept", [0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, cells: AnnData, kept: float) -> None:
    path = tmp_path / "cells.h5ad"
    write_cells(cells, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])

    with pytest.raises(InputError, match=r"cells\.h5ad is truncated or damaged: copy or download it again"):
        read_cells(path)


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    write_text(path, "before")

    with pytest.raises(RuntimeError, match="halfway"), atomic_path(path) as temporary:  # noqa: PT012
        assert temporary.parent == path.parent
        assert temporary.suffix == path.suffix
        temporary.write_text("half of what ca")
        raise RuntimeError("halfway")

    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_a_write_replaces_what_was_there(tmp_path: Path) -> None:
    write_text(tmp_path / "notes.txt", "before")
    write_text(tmp_path / "notes.txt", "after: µ")

    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "after: µ"


def test_a_folder_cannot_be_written_over(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it is a folder, name a file in it"):
        write_text(tmp_path, "text")


def test_a_folder_that_is_absent_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no folder .*absent, create it first"):
        check_writable(tmp_path / "absent" / "file.csv")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody can write")
def test_a_place_that_cannot_be_written_is_refused_beforehand() -> None:
    with pytest.raises(InputError, match=r"cannot write /proc/multipert\.txt: .*, choose another folder"):
        check_writable("/proc/multipert.txt")  # not even root writes there


def test_checking_a_path_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable(tmp_path / "later.csv")

    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("ending", [".h5ad", ".zarr"])
def test_a_file_of_cells_is_told_by_its_ending(tmp_path: Path, cells: AnnData, ending: str) -> None:
    path = tmp_path / f"cells{ending}"
    write_cells(cells, path)
    write_cells(cells[:5].copy(), path)  # over what is there

    read = read_cells(path)

    assert read.n_obs == 5
    assert (cells.X[:5] != read.X).nnz == 0
    assert path.is_dir() == (ending == ".zarr")
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("name", ["cells.csv", "cells", "cells.h5", "cells.pdf"])
def test_other_endings_are_refused(tmp_path: Path, cells: AnnData, name: str) -> None:
    with pytest.raises(InputError, match=r"must end in \.h5ad or \.zarr"):
        write_cells(cells, tmp_path / name)

    assert os.listdir(tmp_path) == []


def test_an_input_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "cells.h5ad").write_text("")
    (tmp_path / "link.h5ad").symlink_to(tmp_path / "cells.h5ad")

    for path in (tmp_path / "cells.h5ad", tmp_path / "link.h5ad", tmp_path / "." / "cells.h5ad"):
        with pytest.raises(InputError, match="is read and would be written over: name another file"):
            check_writable(path, inputs=[tmp_path / "cells.h5ad"])


def lie(path: Path, key: str, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Write other indices into a file."""
    with h5py.File(path, "a") as file:
        changed = change(file[key][()])
        del file[key]
        file[key] = changed


def falls(indptr: np.ndarray) -> np.ndarray:
    indptr[1] = indptr[-1]
    return indptr


def far_away(indices: np.ndarray) -> np.ndarray:
    indices[3] = 10**6
    return indices


def before_the_first(indices: np.ndarray) -> np.ndarray:
    indices[3] = -7
    return indices


@pytest.mark.parametrize("where", ["X", "layers/counts"])
@pytest.mark.parametrize(("part", "change"), [("indptr", falls), ("indices", far_away), ("indices", before_the_first)])
def test_a_sparse_matrix_that_lies_is_refused(
    tmp_path: Path, cells: AnnData, where: str, part: str, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    path = tmp_path / "cells.h5ad"
    write_cells(cells, path)
    lie(path, f"{where}/{part}", change)

    with pytest.raises(InputError, match=r"cells\.h5ad: .*the sparse matrix is damaged \(.*\): write the file again"):
        read_cells(path)


def test_a_sparse_matrix_in_memory_that_lies_is_refused(cells: AnnData) -> None:
    cells.X.indices[3] = 10**6
    with pytest.raises(InputError, match="the sparse matrix is damaged"):
        PerturbationData.from_anndata(cells, perturbation_key="condition", control="control", context_key="cell_type")


@pytest.mark.parametrize("use", [read_cells, check_writable])
def test_names_that_cannot_be(tmp_path: Path, use: Callable[[Path], object]) -> None:
    with pytest.raises(InputError, match="null character"):
        use(Path(f"{tmp_path}/a\0b.h5ad"))
    with pytest.raises(InputError, match=r"cannot be a file \(File name too long\)"):
        use(tmp_path / f"{300 * 'x'}.h5ad")


def test_a_name_as_long_as_may_be_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / f"{241 * 'x'}.txt"

    write_text(path, "text")

    assert path.read_text() == "text"


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a device")
def test_a_device_is_no_file() -> None:
    with pytest.raises(InputError, match=r"/dev/zero is no file but a device"):
        read_cells("/dev/zero")


def test_a_file_whose_type_of_text_is_unknown_is_refused_before_hdf5_crashes(tmp_path: Path, cells: AnnData) -> None:
    path = tmp_path / "cells.h5ad"
    write_cells(cells, path)
    read_cells(path)
    # A type of variable length (class 9) is a sequence (0) or text (1): two bytes of each, one flipped in the last.
    path.write_bytes(path.read_bytes().replace(b"\x19\x01\x01\x00", b"\x19\x06\x01\x00"))

    with pytest.raises(InputError, match=r"cells\.h5ad is truncated or damaged: copy or download it again"):
        read_cells(path)


def test_a_file_with_a_hole_in_it_is_refused_though_hdf5_loops(
    tmp_path: Path, cells: AnnData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5_check, "_SECONDS", 1)
    path = tmp_path / "cells.h5ad"
    write_cells(cells, path)
    content = bytearray(path.read_bytes())
    heap = content.find(b"GCOL")
    content[heap + 64 : heap + 1500] = bytes(1436)
    path.write_bytes(content)

    with pytest.raises(InputError, match=r"cells\.h5ad is truncated or damaged: copy or download it again"):
        read_cells(path)


def test_a_zarr_that_is_a_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "cells.zarr").write_text("no folder")

    with pytest.raises(InputError, match="it is a file, name a folder, or delete it first"):
        check_writable(tmp_path / "cells.zarr")


@pytest.mark.parametrize("table", ["obs", "var"])
@pytest.mark.parametrize("ending", [".h5ad", ".zarr"])
def test_a_file_without_names_is_refused(tmp_path: Path, cells: AnnData, table: str, ending: str) -> None:
    path = tmp_path / f"cells{ending}"
    write_cells(cells, path)
    if ending == ".zarr":
        shutil.rmtree(path / table)
        (path / ".zmetadata").unlink(missing_ok=True)
    else:
        with h5py.File(path, "a") as file:
            del file[table]

    with pytest.raises(InputError, match=rf"cells\{ending} holds no names of (cells|genes) \({table}\)"):
        read_cells(path)


def test_indices_and_categories_of_other_kinds_are_refused(tmp_path: Path, cells: AnnData) -> None:
    for number, (key, change) in enumerate(
        (("X/indices", lambda x: x.astype("S3")), ("obs/condition/categories", lambda x: x[:, None]))
    ):
        path = tmp_path / f"{number}.h5ad"
        write_cells(cells, path)
        with h5py.File(path, "a") as file:
            attributes, changed = dict(file[key].attrs), change(file[key][()])
            del file[key]
            file[key] = changed
            file[key].attrs.update(attributes)

        with pytest.raises(InputError, match=r"damaged"):
            read_cells(path)


def test_an_array_that_says_to_be_huge_is_refused(tmp_path: Path, cells: AnnData) -> None:
    path = tmp_path / "cells.h5ad"
    write_cells(cells, path)
    with h5py.File(path, "a") as file:
        huge = file.create_dataset("obsm/X_pca", shape=(cells.n_obs, 10**7), chunks=(10, 1000), dtype="f4")
        huge.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})

    with pytest.raises(InputError, match=r"obsm/X_pca says to hold [\d,]+ GiB, of which hardly anything is stored"):
        read_cells(path)
