"""What `make mutants` plants and counts."""

import pytest

from tests.mutants import OPERATORS, Fault, drawn, table, wilson


def test_a_fault_changes_one_line() -> None:
    source = "def f(a):\n    if a < 3:\n        return a + 1\n    return 0\n"
    assert Fault("x/y.py", "ReplaceComparisonOperator_Lt_LtE", 0).planted(source) == source.replace("a < 3", "a <= 3")
    assert Fault("x/y.py", "ReplaceBinaryOperator_Add_Sub", 0).planted(source) == source.replace("a + 1", "a - 1")
    assert Fault("x/y.py", "ReplaceBinaryOperator_Add_Sub", 1).planted(source) is None


def test_a_sample_is_the_seeds() -> None:
    assert drawn("pim_model", 5, 1) == drawn("pim_model", 5, 1) != drawn("pim_model", 5, 2)
    assert {fault.operator for fault in drawn("pim_model", 10**6, 0)} <= set(OPERATORS)


def test_shares_are_by_package() -> None:
    results = [
        {"fault": {"file": f"{package}/a.py"}, "noticed": noticed} for package, noticed in (("rtl", 1), ("traces", 0))
    ]
    rows = table(results)
    shown = [list(column.cells) for column in rows.columns]
    assert shown[:3] == [["traces", "rtl", "all"], ["1", "1", "2"], ["0", "1", "1"]]
    assert wilson(8, 10) == pytest.approx((0.490, 0.943), abs=1e-3)
