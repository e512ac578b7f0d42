"""Numbers as they are printed."""

import pytest

from multipert.report.numbers import number, shared_decimals


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (76.0, "76"),
        (0.93456, "0.935"),
        (5.512, "5.51"),
        (1234.56, "1,235"),
        (-0.0412, "\N{MINUS SIGN}0.0412"),
        (0.0, "0"),
        (0.000000123, "1.23e\N{MINUS SIGN}07"),
        (float("inf"), "\N{EN DASH}"),
        (float("nan"), "\N{EN DASH}"),
    ],
)
def test_three_digits_that_matter(value: float, printed: str) -> None:
    assert number(value) == printed


def test_what_rounds_to_zero_has_no_sign() -> None:
    assert number(-0.0004, 2) == "0.00"


def test_a_column_shares_its_decimals() -> None:
    assert shared_decimals([5.51, 2.6, -0.04, 1.33]) == 2
    assert shared_decimals([70.0, 1.0, 90.0]) == 0
    assert shared_decimals([float("nan"), float("inf")]) == 0
