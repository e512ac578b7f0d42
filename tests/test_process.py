"""A library call changes no setting of the process it is in; our own processes settle theirs."""

import os
import platform
import subprocess
import sys

import pytest

from multipert.process import FREED

QUIET = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}


def says(program: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], env=QUIET | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_fit_leaves_the_process_as_it_was() -> None:
    program = """
import ctypes, os, torch, multipert as mp
calls, cdll = [], ctypes.CDLL
ctypes.CDLL = lambda *given, **more: calls.append(given) or cdll(*given, **more)
before = dict(os.environ), torch.get_num_threads(), torch.get_rng_state().tolist(), torch.get_default_dtype()
adata = mp.simulate(n_genes=30, contexts=("A", "B"), perturbations=("p",), cells_per_group=10)
data = mp.PerturbationData.from_anndata(adata, perturbation_key="condition", control="control", context_key="cell_type")
mp.models.create("mtae", epochs=1, batch_size=8).fit(data, device="cpu")
after = dict(os.environ), torch.get_num_threads(), torch.get_rng_state().tolist(), torch.get_default_dtype()
print(before == after, "OMP_WAIT_POLICY" in os.environ, [call for call in calls if "libc.so.6" in call or None in call])
"""
    assert says(program) == "True False []"


def test_openmp_waits_passively_in_our_own_processes_unless_told_otherwise() -> None:
    program = "import os, sys; from multipert.process import own_process; own_process(); "
    program += "print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    assert says(program) == "PASSIVE False"
    assert says(program, OMP_WAIT_POLICY="ACTIVE") == "ACTIVE False"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_where_memory_is_short_what_is_freed_goes_back_to_the_system() -> None:
    program = """
import numpy as np
from pathlib import Path
from multipert.process import own_process
own_process()
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
before = resident()
held = [np.ones(2**18) for _ in range(50)]
taken, held = resident() - before, None
print((resident() - before) / taken)
"""
    assert float(says(program, **FREED)) < 0.1
    assert float(says(program)) > 0.9


def test_the_command_settles_its_process_before_torch_is_loaded() -> None:
    program = """
import sys, multipert.process as process
import multipert.cli.app as app
app.own_process = lambda: print("settled, torch loaded:", "torch" in sys.modules)
sys.argv = ["multipert", "--version"]
app.main()
"""
    assert says(program).splitlines()[0] == "settled, torch loaded: False"
