"""One h5ad file over HTTP: resumed where it broke off, checked, and every failure one clear sentence."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from multipert.errors import InputError, is_disk_full
from multipert.progress import Progress

if TYPE_CHECKING:
    from requests import Response

TIMEOUT = 30.0
"""Seconds a server may stay silent."""

_CHUNK = 1 << 15  # bytes; as much is lost where a download breaks off


def download(url: str, path: Path, *, sha256: str | None, recorded_in: Path, by_hand: str, progress: bool) -> None:
    """Download an h5ad file, unless it is there already with the right checksum.

    What has come is kept beside it as ``<name>.part`` until all of it is there; the next call goes on from there.

    Parameters
    ----------
    url
        Where it is.
    path
        Where it goes; its folder must exist.
    sha256
        What it must be, in hexadecimal; anything, if none.
    recorded_in
        The file that ``sha256`` was read from, for the sentence that says it differs.
    by_hand
        What to do where downloading fails, for the end of a sentence.
    progress
        Whether to say on standard error how far it is.

    Raises
    ------
    InputError
        The server cannot be reached, refuses, breaks off, or sends another file; or the disk is full.
    """
    import pooch

    pooch.get_logger().setLevel("WARNING")  # it would announce the file beside our own line
    partial = path.with_name(f"{path.name}.part")

    def resume(url: str, output: str, _: Any) -> None:
        _stream(url, partial, by_hand, progress)
        _check_kind(url, partial, by_hand)
        os.replace(partial, output)

    known = None if sha256 is None else f"sha256:{sha256}"
    try:
        pooch.retrieve(url, known_hash=known, fname=path.name, path=path.parent, downloader=resume)
    except InputError:
        raise
    except ValueError as error:  # how pooch says that checksums differ
        raise InputError(
            f"{url} sends another file than at first (its sha256 was {sha256}): try again later, or {by_hand}, or, "
            f"where the change is meant, remove {recorded_in} and fetch again"
        ) from error
    except OSError as error:
        raise no_room(path.parent, error) from error


def no_room(folder: Path, error: OSError) -> InputError:
    """Say why a folder of downloads could not be written, and what to do."""
    full = is_disk_full(error)
    what = "the disk is full: make room and run it again" if full else f"{error.strerror or error}: mend that"
    return InputError(f"cannot write in {folder}: {what}, or choose another folder with MULTIPERT_CACHE")


def _stream(url: str, partial: Path, by_hand: str, progress: bool) -> None:
    """Bring the partial file to its full length."""
    import requests

    validator = partial.with_name(f"{partial.name}.version")
    with _claimed(partial) as file:
        done = file.tell()
        response = _ask(url, done, validator, by_hand)
        span = response.headers.get("Content-Range", "")
        if response.status_code == 416 and span == f"bytes */{done}":
            return
        if response.status_code == 416 or (response.status_code == 206 and not span.startswith(f"bytes {done}-")):
            response.close()
            done = 0
            response = _ask(url, done, validator, by_hand)
        with response:
            if not response.ok:
                raise InputError(
                    f"{url} answers {response.status_code} {response.reason}: try again later, or {by_hand}"
                )
            if response.status_code != 206:  # all of it: the server knows no ranges, or the file has changed
                done = 0
                file.truncate(0)
            _keep_version(response, validator)
            length = response.headers.get("Content-Length")
            total = None if length is None else done + int(length)
            with Progress(progress, amount=_amount) as bar:
                bar.begin(partial.stem, total, done)
                if progress:
                    going_on = f", going on from {_amount(done, None)}" if done else ""
                    bar.say(f"{partial.stem}: downloading{going_on}")
                try:
                    for chunk in response.iter_content(_CHUNK):
                        file.write(chunk)
                        done += len(chunk)
                        bar.update(done)
                except requests.RequestException as error:
                    raise _broken_off(url, done, total, by_hand) from error
            if total is not None and done < total:
                raise _broken_off(url, done, total, by_hand)
    validator.unlink(missing_ok=True)


def _ask(url: str, done: int, validator: Path, by_hand: str) -> "Response":
    """Ask for the file, from byte ``done`` on if it is still the one those bytes are of."""
    import requests

    headers = {"Accept-Encoding": "identity"}  # bytes are counted as they are stored
    if done:
        headers["Range"] = f"bytes={done}-"
        if validator.exists():
            headers["If-Range"] = validator.read_text(encoding="utf-8")
    server = urlsplit(url).netloc
    try:
        return requests.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    except requests.Timeout as error:
        raise InputError(
            f"{server} did not answer in {TIMEOUT:g} s, so {url} could not be downloaded: try again later, or {by_hand}"
        ) from error
    except requests.ConnectionError as error:
        raise InputError(
            f"{server} cannot be reached, so {url} could not be downloaded: try again with a network, or {by_hand}"
        ) from error
    except requests.RequestException as error:
        raise InputError(f"{url} could not be downloaded ({error}): {by_hand}") from error


def _keep_version(response: "Response", validator: Path) -> None:
    """Keep what the server calls this version of the file, so that a resumed download never mixes two."""
    version = response.headers.get("ETag", "W/")
    if version.startswith("W/"):  # equal in meaning, perhaps not in bytes
        version = response.headers.get("Last-Modified", "")
    if version:
        validator.write_text(version, encoding="utf-8")
    else:
        validator.unlink(missing_ok=True)


def _broken_off(url: str, done: int, total: int | None, by_hand: str) -> InputError:
    return InputError(
        f"{url} broke off after {_amount(done, total)}: run the same command again to go on from there, or {by_hand}"
    )


def _check_kind(url: str, partial: Path, by_hand: str) -> None:
    """Refuse what is no HDF5 file, such as the page that a server shows in place of a file that has moved."""
    import h5py

    if not h5py.is_hdf5(partial):
        partial.unlink()
        raise InputError(
            f"{url} sent something that is no h5ad file (it may have moved): look there with a browser, or {by_hand}"
        )


@contextmanager
def _claimed(partial: Path) -> Iterator[BinaryIO]:
    """Open the partial file to be gone on with, for this process alone."""
    with open(partial, "ab") as file:
        if sys.platform != "win32":
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(f"another process is downloading {partial.stem}: wait until it is done") from None
            except OSError:
                pass  # a file system without locks
        yield file


def _amount(done: int, total: int | None) -> str:
    return f"{done / 1e6:.1f} MB" if total is None else f"{done / 1e6:.1f} of {total / 1e6:.1f} MB"
