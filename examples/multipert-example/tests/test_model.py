"""The model keeps what every model must keep."""

from multipert_example.model import FoldChange

from multipert.testing import check_model


def test_it_can_be_used_wherever_a_model_can() -> None:
    """Configured, fitted, asked for predictions, saved and loaded."""
    check_model(FoldChange)
