"""One display for training, benchmarks and downloads: what it prints off a terminal, and on one."""

import io
import sys
import time

import pytest

from multipert.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_off_a_terminal_lines_come_now_and_then_and_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(True, amount=lambda done, total: f"epoch {done}/{total}", every=0.05) as progress:
        progress.begin("warm-up", 3)
        progress.update(1, "loss 2")
        time.sleep(0.1)
        progress.update(2, "loss 1.5")
        progress.update(3, "loss 1")
        progress.begin("main", 9, 4)
        progress.update(5)

    assert capsys.readouterr().err.splitlines() == [
        "warm-up: epoch 2/3  loss 1.5",
        "warm-up: epoch 3/3  loss 1",
        "main: epoch 5/9",
    ]


def test_a_line_of_its_own_comes_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(True) as progress:
        progress.begin("trials", 2)
        progress.update(1, line="first: 3 s")
        progress.say("something else")
        progress.update(2, line="second: 3 s")

    assert capsys.readouterr().err.splitlines() == ["first: 3 s", "something else", "second: 3 s"]


@pytest.mark.parametrize("show", [False, None])
def test_nothing_is_shown_unless_asked_for(show: bool | None, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(show) as progress:
        progress.begin("file", 2)
        progress.update(2)

    assert capsys.readouterr().err == ""


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress() as progress:
        progress.begin("file", 2)
        progress.update(1, "slowly")
        progress.say("beside it")

    shown = terminal.getvalue()
    assert all(text in shown for text in ("file", "1/2", "slowly", "beside it"))
