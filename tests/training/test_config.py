"""How and where a training runs: what "auto" comes to on this machine."""

import pytest
import torch

from multipert.errors import InputError
from multipert.training import TrainerConfig, device
from multipert.training.config import WIDE


@pytest.mark.parametrize("name", ["cpu:1", "cuda:x", "cuda:99", "abacus", "meta"])
def test_what_this_machine_lacks_is_named(name: str) -> None:
    with pytest.raises(InputError, match=f"cannot train on device '{name}' .*: try 'cpu'"):
        TrainerConfig(name).resolve(n_genes=10, bfloat16=False)


def test_a_precision_that_there_is_not_is_named() -> None:
    with pytest.raises(InputError, match="there is no precision 'float16'"):
        TrainerConfig("cpu", precision="float16").resolve(n_genes=10, bfloat16=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("in_hardware", [True, False])
def test_automatic_precision_is_bfloat16_where_the_device_has_it_the_model_stands_it_and_genes_are_many(
    monkeypatch: pytest.MonkeyPatch, in_hardware: bool
) -> None:
    monkeypatch.setattr(device, "has_bfloat16", lambda _: in_hardware)
    for n_genes, stands_it in ((WIDE, True), (WIDE, False), (WIDE - 1, True)):
        resolved = TrainerConfig("cpu").resolve(n_genes=n_genes, bfloat16=stands_it)
        wanted = in_hardware and stands_it and n_genes == WIDE
        assert (resolved.device, resolved.precision) == ("cpu", "bfloat16" if wanted else "float32")
        for named in ("float32", "bfloat16"):
            assert TrainerConfig("cpu", precision=named).resolve(n_genes=n_genes, bfloat16=stands_it).precision == named


def test_the_device_is_a_gpu_where_there_is_one() -> None:
    resolved = TrainerConfig().resolve(n_genes=10, bfloat16=False)
    gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    assert (resolved.device != "cpu") == gpu
