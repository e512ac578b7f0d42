"""Three hundred spoilt inputs: each is refused in one sentence, or answered right. ``make fuzz`` does ten thousand."""

import subprocess
import sys
from pathlib import Path

import pytest

CASES, SEED, MINUTES = 300, 1, 10


@pytest.mark.fuzz
def test_spoilt_inputs_are_refused_or_answered_right() -> None:
    command = [sys.executable, "-m", "fuzz", "--cases", str(CASES), "--seed", str(SEED), "--minutes", str(MINUTES)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
