"""Where tests find the real cells, and the fixtures that several packages share."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

# Test processes run side by side on few cores: one thread each, or they wait for one another at every product.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would all they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

Run = Callable[..., tuple[int, str, str]]


def _data_folder() -> Path | None:
    """The folder of real cells: ``MULTIPERT_DATA``, else ``../shared/data`` beside the project's root."""
    named = os.environ.get("MULTIPERT_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def data_folder() -> Path:
    folder = _data_folder()
    if folder is None:
        if os.environ.get("CI"):
            pytest.fail("CI must see the real cells: set MULTIPERT_DATA to their folder")
        pytest.skip("the real cells are absent: set MULTIPERT_DATA to the folder that holds kang_subset.h5ad")
    return folder


@pytest.fixture(scope="session")
def kang_path(data_folder: Path) -> Path:
    return data_folder / "kang_subset.h5ad"


@pytest.fixture(scope="session")
def mcfaline_path(data_folder: Path) -> Path:
    return data_folder / "mcfaline_subset.h5ad"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process: exit code, what it printed, what it printed on standard error."""
    from multipert.cli import main

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["multipert", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call
