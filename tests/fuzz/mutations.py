"""Ways to spoil a file: each changes it in place and says in a few words what it did."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr

Rng = np.random.Generator
Mutation = Callable[[Any, Rng], str]

TEXTS = ("", " ", "x", "control", "\u00b5g/ml", "\u202etfel", "a\tb\nc", "\U0001f9ec" * 3, "\ufeffx", "nan", "A" * 5000)
NUMBERS = (0, -1, 1, 7, 2**31, -(2**63), 10**8, 10**30, 0.5, -0.0, 1e-300, 1e308, float("inf"), float("nan"))
JSON_VALUES: tuple[Any, ...] = (None, True, [], [None], {}, {"x": 1}, [[[]]], *TEXTS[:6], *NUMBERS)
DTYPES = ("i1", "u1", "i8", "u8", "f2", "f4", "f8", "c8", "?", "S3", "O")


def choose(rng: Rng, options: Any) -> Any:
    """One of several, as it is."""
    options = list(options)
    return options[int(rng.integers(len(options)))]


# Bytes.


def spoil_bytes(path: Path, rng: Rng) -> str:
    """Flip, zero, cut, insert or double bytes."""
    content = bytearray(path.read_bytes())
    if not content:
        path.write_bytes(bytes(rng.integers(0, 256, 20, dtype=np.uint8)))
        return "bytes in an empty file"
    at, kind = int(rng.integers(len(content))), int(rng.integers(6))
    if kind in (0, 1):
        for _ in range(1 if kind == 0 else int(rng.integers(2, 30))):
            content[int(rng.integers(len(content)))] ^= int(rng.integers(1, 256))
    elif kind == 2:
        del content[at:]
    elif kind == 3:
        stop = min(len(content), at + int(rng.integers(1, 600)))
        content[at:stop] = bytes(stop - at)
    elif kind == 4:
        content[at:at] = bytes(rng.integers(0, 256, int(rng.integers(1, 100)), dtype=np.uint8))
    else:
        content += content[at:]
    path.write_bytes(bytes(content))
    return f"bytes of {path.name}: {('one flipped', 'some flipped', 'cut off', 'zeroed', 'inserted', 'doubled')[kind]}"


def spoil_start(path: Path, rng: Rng) -> str:
    """Flip a byte in the first two thousand, where most of a file's description is."""
    content = bytearray(path.read_bytes())
    at = int(rng.integers(min(len(content), 2000)))
    content[at] ^= int(rng.integers(1, 256))
    path.write_bytes(bytes(content))
    return f"byte {at} of {path.name} flipped"


def spoil_one_of(folder: Path, rng: Rng) -> str:
    """Spoil, delete, empty or move one file of a folder."""
    path = choose(rng, sorted(one for one in folder.rglob("*") if one.is_file()))
    kind = int(rng.integers(6))
    if kind == 0:
        path.unlink()
    elif kind == 1:
        path.write_bytes(b"")
    elif kind == 2:
        path.rename(path.with_name(choose(rng, ("0", ".zarray", "1.0", "x", ".zgroup"))))
    else:
        return spoil_bytes(path, rng)
    return f"{path.relative_to(folder)} {('deleted', 'emptied', 'moved')[kind]}"


# Structure of h5ad and zarr.


def open_cells(path: Path) -> Any:
    return h5py.File(path, "r+") if path.suffix == ".h5ad" else zarr.open_group(path, mode="r+")


def nodes(group: Any, prefix: str = "") -> Iterator[str]:
    """Paths of all that is in a file."""
    for key in list(group.keys()):
        yield f"{prefix}{key}"
        if is_group(group[key]):
            yield from nodes(group[key], f"{prefix}{key}/")


def is_group(node: Any) -> bool:
    return hasattr(node, "keys") and not hasattr(node, "dtype")


def put(file: Any, key: str, value: Any) -> None:
    """Write an array in place of whatever is there, its attributes kept."""
    attributes = dict(file[key].attrs) if key in file else {}
    if key in file:
        del file[key]
    value = np.asarray(value)
    if isinstance(file, h5py.Group):
        if value.dtype.kind in "OU":
            value = value.astype(object)
            file.create_dataset(key, data=value, dtype=h5py.string_dtype())
        else:
            file.create_dataset(key, data=value)
    else:
        file.create_array(key, data=value.astype(str) if value.dtype.kind == "O" else value)
    for name, one in attributes.items():
        file[key].attrs[name] = one


def arrays(file: Any) -> list[str]:
    return [key for key in nodes(file) if not is_group(file[key]) and file[key].shape not in (None, ())]


def spoil_values(file: Any, rng: Rng) -> str:
    """Numbers that cannot be, in some entries of the expression."""
    key = "X/data" if is_group(file["X"]) else "X"
    values = np.asarray(file[key][...])
    bad = choose(rng, (np.nan, np.inf, -np.inf, -1.0, -1e-4, 1e30, 40.0, 0.0))
    values.flat[rng.integers(values.size, size=int(rng.integers(1, 5)))] = bad
    put(file, key, values)
    return f"{bad} in {key}"


def spoil_scale(file: Any, rng: Rng) -> str:
    """The whole expression on another scale."""
    key = "X/data" if is_group(file["X"]) else "X"
    values = np.asarray(file[key][...], dtype=np.float64)
    name, change = choose(
        rng,
        (
            ("logged again", np.log1p),
            ("not logged", np.expm1),
            ("ten times", lambda x: 10 * x),
            ("halved", lambda x: x / 2),
            ("zero", np.zeros_like),
            ("negative", np.negative),
            ("rounded", np.rint),
        ),
    )
    put(file, key, change(values).astype(np.float32))
    return f"X {name}"


def spoil_dtype(file: Any, rng: Rng) -> str:
    """An array of another type."""
    key, kind = choose(rng, arrays(file)), choose(rng, DTYPES)
    values = np.asarray(file[key][...])
    with np.errstate(all="ignore"):
        try:
            values = (
                values.astype(kind)
                if kind != "O"
                else np.array([str(one) for one in values.flat]).reshape(values.shape)
            )
        except (ValueError, TypeError):
            values = np.zeros(values.shape, "f4")
    put(file, key, values)
    return f"{key} as {kind}"


def spoil_shape(file: Any, rng: Rng) -> str:
    """An array cut, doubled, emptied or of other dimensions."""
    key = choose(rng, arrays(file))
    values = np.asarray(file[key][...])
    name, change = choose(
        rng,
        (
            ("cut", lambda x: x[: len(x) // 2]),
            ("doubled", lambda x: np.concatenate([x, x])),
            ("empty", lambda x: x[:0]),
            ("a column", lambda x: x[..., None]),
            ("reversed", lambda x: x[::-1]),
            ("a scalar", lambda x: x.flat[0]),
        ),
    )
    put(file, key, change(values))
    return f"{key} {name}"


def spoil_sparse(file: Any, rng: Rng) -> str:
    """A sparse matrix that lies."""
    group = choose(rng, [key for key in ("X", "layers/counts") if key in file and is_group(file[key])] or ["obs"])
    if group == "obs":
        return spoil_values(file, rng)
    part = choose(rng, ("indptr", "indices", "shape"))
    if part == "shape":
        shape = choose(
            rng, ([1, 1], [0, 0], [10, 111], [11, 110], [-1, 110], [2**40, 110], [10], [10, 110, 1], "x", 3.5)
        )
        file[group].attrs["shape"] = shape
        return f"{group} says shape {shape}"
    values = np.asarray(file[f"{group}/{part}"][...])
    at = int(rng.integers(1, len(values) - 1))
    values[at] = choose(rng, (-1, 0, 10**6, 2**31 - 1, -(2**31), values[-1], values[at - 1]))
    put(file, f"{group}/{part}", values)
    return f"{group}/{part}[{at}] = {values[at]}"


def spoil_attribute(file: Any, rng: Rng) -> str:
    """An attribute deleted, or of another type."""
    places = [(key, name) for key in ["/", *nodes(file)] for name in dict((file if key == "/" else file[key]).attrs)]
    key, name = choose(rng, places)
    node = file if key == "/" else file[key]
    if rng.random() < 0.3:
        del node.attrs[name]
        return f"attribute {name} of {key} deleted"
    value = choose(
        rng, (*TEXTS[:8], 3, -1, 2.5, True, [1, 2], ["a", "b"], [], "csr_matrix", "csc_matrix", "array", "9.9.9")
    )
    node.attrs[name] = value
    return f"attribute {name} of {key} = {str(value)[:20]!r}"


def spoil_key(file: Any, rng: Rng) -> str:
    """Something deleted, copied elsewhere, or an array where a group was and the reverse."""
    key, kind = choose(rng, nodes(file)), int(rng.integers(4))
    if kind == 0:
        del file[key]
        return f"{key} deleted"
    if kind == 1:
        del file[key]
        file.create_group(key)
        return f"{key} an empty group"
    if kind == 2:
        put(file, key, np.arange(int(rng.integers(0, 5))).astype(choose(rng, ("f4", "i8", "U3"))))
        return f"{key} another array"
    other = choose(rng, [one for one in nodes(file) if not one.startswith(key) and not key.startswith(one)])
    if isinstance(file, h5py.Group):
        del file[key]
        target = choose(rng, (other, key, "/", "/nowhere"))
        file[key] = h5py.SoftLink(target) if rng.random() < 0.8 else h5py.ExternalLink("absent.h5ad", "/X")
        return f"{key} a link to {target}"
    if is_group(file[other]):
        return spoil_attribute(file, rng)
    put(file, key, file[other][...])
    return f"{key} what {other} is"


def spoil_labels(file: Any, rng: Rng) -> str:
    """Labels and names that are strange, doubled, empty or of impossible categories."""
    table = choose(rng, ("obs", "var"))
    columns = [key for key in nodes(file[table]) if not is_group(file[table][key])]
    key = f"{table}/{choose(rng, columns)}"
    values = np.asarray(file[key][...])
    at = int(rng.integers(len(values)))
    if values.dtype.kind in "iuf":
        values = values.astype("i8" if values.dtype.kind != "f" else "f8")
        values[at] = choose(rng, (-1, 99, -128, 0, 2**31))
    else:
        values = np.array([one.decode() if isinstance(one, bytes) else str(one) for one in values], dtype=object)
        values[at] = choose(rng, (*TEXTS, values[0], values[-1]))
    put(file, key, values)
    return f"{key}[{at}] = {str(values[at])[:20]!r}"


def spoil_order(file: Any, rng: Rng) -> str:
    """Genes renamed in another order or case: no damage, but other cells."""
    names = np.array([one.decode() if isinstance(one, bytes) else str(one) for one in file["var/_index"][...]], object)
    kind = int(rng.integers(4))
    if kind == 0:
        names = names[rng.permutation(len(names))]
    elif kind == 1:
        names = np.array([name.lower() for name in names], object)
    elif kind == 2:
        names = np.array([f"{name}.2" for name in names], object)
    else:
        names[: len(names) // 3] = [f"other{number}" for number in range(len(names) // 3)]
    put(file, "var/_index", names)
    return f"genes {('permuted', 'in lower case', 'with versions', 'in part others')[kind]}"


def spoil_uns(file: Any, rng: Rng) -> str:
    """What stands in uns of another kind than it is."""
    key = choose(
        rng, ("log1p", "log1p/base", "multipert_preprocessing", "multipert_preprocessing/target_sum", "multipert")
    )
    value = choose(rng, (*NUMBERS[:4], *NUMBERS[8:], "x", np.arange(3), np.array(["a", "b"], object)))
    if key == "log1p/base" and "uns/log1p" not in file:
        key = "log1p"
    if f"uns/{key.split('/', maxsplit=1)[0]}" not in file and "/" in key:
        key = "multipert"
    put(file, f"uns/{key}", np.asarray(value))
    return f"uns/{key} = {str(value)[:20]}"


def spoil_size(file: Any, rng: Rng) -> str:
    """A matrix that says to be huge, and holds nothing."""
    key = choose(rng, ("X", "layers/counts", "obsm/X_pca"))
    shape = choose(rng, ((10, 10**9), (10**6, 10**6), (10**9, 110), (2**33, 2), (10, 110, 10**6)))
    if key in file:
        del file[key]
    chunks = tuple(min(length, 64) for length in shape)
    create = file.create_dataset if isinstance(file, h5py.Group) else file.create_array
    create(key, shape=shape, chunks=chunks, dtype="f4")
    file[key].attrs["encoding-type"], file[key].attrs["encoding-version"] = "array", "0.2.0"
    return f"{key} says shape {shape}"


def change_nothing(file: Any, rng: Rng) -> str:
    return "nothing"


STRUCTURE: tuple[tuple[Mutation, int], ...] = (
    (spoil_values, 3),
    (spoil_scale, 3),
    (spoil_dtype, 3),
    (spoil_shape, 3),
    (spoil_sparse, 4),
    (spoil_attribute, 4),
    (spoil_key, 4),
    (spoil_labels, 3),
    (spoil_order, 2),
    (spoil_uns, 2),
    (spoil_size, 1),
    (change_nothing, 1),
)


def spoil_cells(path: Path, rng: Rng) -> str:
    """Spoil an h5ad file or a zarr folder: its bytes, or what it holds."""
    if rng.random() < 0.4:
        if path.is_dir():
            return spoil_one_of(path, rng)
        return spoil_start(path, rng) if rng.random() < 0.3 else spoil_bytes(path, rng)
    weights = np.array([weight for _, weight in STRUCTURE], dtype=float)
    done = []
    file = open_cells(path)
    for _ in range(1 if rng.random() < 0.8 else 2):
        mutation = STRUCTURE[int(rng.choice(len(STRUCTURE), p=weights / weights.sum()))][0]
        try:
            done.append(mutation(file, rng))
        except Exception as error:  # after a first change, what a second one looks for may be gone
            done.append(f"{mutation.__name__} found nothing ({type(error).__name__})")
    if path.suffix == ".h5ad":
        file.close()
    return ", ".join(done)


# JSON.


def places(value: Any, prefix: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value inside a JSON value; of long lists to the first and the last."""
    inside = list(value.items()) if isinstance(value, dict) else []
    if isinstance(value, list):
        inside = list(enumerate(value[:1])) + list(enumerate(value))[1:][-1:]
    for key, one in inside:
        yield (*prefix, key)
        yield from places(one, (*prefix, key))


def spoil_json(record: Any, rng: Rng) -> tuple[Any, str]:
    """Change, delete or add a value."""
    place = choose(rng, places(record))
    inside = record
    for key in place[:-1]:
        inside = inside[key]
    kind = rng.random()
    if kind < 0.2:
        del inside[place[-1]]
        return record, f"{place} deleted"
    if kind < 0.3 and isinstance(inside, dict):
        inside["more"] = 1
        return record, f"beside {place} more"
    value = choose(rng, JSON_VALUES)
    inside[place[-1]] = value
    return record, f"{place} = {json.dumps(value)[:30]}"


# Study files.


def spoil_study(text: str, rng: Rng) -> tuple[bytes, str]:
    """Spoil a TOML text: a value, a key, a line, or its bytes."""
    kind = int(rng.integers(6))
    if kind == 0:
        content = bytearray(text.encode())
        for _ in range(int(rng.integers(1, 4))):
            content[int(rng.integers(len(content)))] ^= int(rng.integers(1, 256))
        return bytes(content), "bytes flipped"
    lines = text.splitlines()
    at = choose(rng, [number for number, line in enumerate(lines) if line.strip()])
    if kind == 1:
        del lines[at]
        return "\n".join(lines).encode(), f"line {at + 1} deleted"
    if kind == 2:
        other = int(rng.integers(len(lines)))
        lines[other:other] = [lines[at]]
        return "\n".join(lines).encode(), f"line {at + 1} once more before line {other + 1}"
    pairs = list(re.finditer(r"(\w+) = (\"[^\"]*\"|\[[^\[\]]*\]|[\w.]+)", text))
    found = choose(rng, pairs)
    if kind == 3:
        key = choose(rng, ("", "x", "seeds", "name", "path", "simulate", "__class__", '"\\u0000"', "a.b"))
        return (text[: found.start(1)] + key + text[found.end(1) :]).encode(), f"{found[1]} called {key!r}"
    values = [
        *(
            "0",
            "-1",
            "1",
            "3",
            "1e300",
            "nan",
            "inf",
            "-inf",
            "99999999999999999999",
            "true",
            "1979-05-27",
            "100000000",
        ),
        *(
            '""',
            '"x"',
            '"\\u0000"',
            '"/dev/zero"',
            '"~nobody/x"',
            "[]",
            "[[]]",
            "{}",
            "{ x = 1 }",
            "[1, 1]",
            '["A", "A"]',
        ),
        *(
            '"mtae"',
            '"mean-shift"',
            '["beta"]',
            '["C"]',
            '"\\U0001F9EC"',
            f'"{"n" * 300}"',
            f"[{'1, ' * 1200}]",
            '["B", "Z"]',
        ),
        *("[4, 2]", "[2, 4]", '"data.h5ad"', '"training"', "2", "41", "0.25"),
    ]
    value = choose(rng, values)
    return (text[: found.start(2)] + value + text[found.end(2) :]).encode(), f"{found[1]} = {value[:30]}"
