"""What `make mutants` plants and counts."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants import OPERATORS, ROOT, Copy, Fault, drawn, main, table, wilson


def test_a_fault_changes_one_line() -> None:
    source = "def f(a):\n    if a < 3:\n        return a + 1\n    return 0\n"
    assert Fault("x/y.py", "ReplaceComparisonOperator_Lt_LtE", 0).planted(source) == source.replace("a < 3", "a <= 3")
    assert Fault("x/y.py", "ReplaceBinaryOperator_Add_Sub", 0).planted(source) == source.replace("a + 1", "a - 1")
    assert Fault("x/y.py", "ReplaceBinaryOperator_Add_Sub", 1).planted(source) is None


def test_what_any_run_would_notice_is_no_fault() -> None:
    # The star before keyword-only arguments is none of a product.
    assert Fault("x/y.py", "ReplaceBinaryOperator_Mul_Add", 0).planted("def f(*, a):\n    return a\n") is None


def test_guards_against_a_programmers_slip_are_not_tried() -> None:
    true = Fault("x/y.py", "ReplaceTrueWithFalse", 0)
    assert true.planted("@dataclass(frozen=True)\nclass A:\n    a: int\n") is None
    assert true.planted("list(zip(a, b, strict=True))\n") is None
    assert true.planted("a = Field(strict=True)\n") == "a = Field(strict=False)\n"


def test_missed_faults_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(Copy, "passes", lambda self, tests, timeout_s=None: True)
    out = tmp_path / "tried.jsonl"
    for _ in range(2):  # the second goes on from the file
        main(["pim_model"], count=2, seed=1, out=out)
        shown = capsys.readouterr().out
        assert shown.count("missed: pim_model/") == 2
        assert len(out.read_text().splitlines()) == 2


def test_a_sample_is_the_seeds() -> None:
    first = drawn("pim_model", 5, 1)
    assert first == drawn("pim_model", 5, 1) != drawn("pim_model", 5, 2)
    assert {fault.operator for fault in first} <= set(OPERATORS)


def test_the_likeliest_tests_run_first(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    first = copy.likely_first(Fault("pim_model/numerics/floats.py", "AddNot", 0))
    assert sorted(first) == copy.tests("pim_model")
    assert first[0].name == "test_floats.py"  # of the same name
    assert copy.likely_first(Fault("predictor/measure/metrics.py", "AddNot", 0))[0].name == "test_metrics.py"


def test_what_was_found_holds_for_one_state_of_code_and_tests(tmp_path: Path) -> None:
    copy = Copy(tmp_path)
    states = [copy.state("pim_model")]
    for name in ("pim_model/numerics/floats.py", "tests/pim_model/test_floats.py"):
        with (copy.root / name).open("a") as file:
            file.write("\n# changed\n")
        states.append(copy.state("pim_model"))
    assert len(set(states)) == 3
    assert copy.state("catalog") == Copy(tmp_path / "again").state("catalog")


@pytest.mark.parametrize(
    ("body", "status"), [("assert True", 0), ("assert False", 1), ("import time; time.sleep(60)", None)]
)
def test_tests_pass_or_fail_or_take_too_long(body: str, status: int | None, tmp_path: Path) -> None:
    (tmp_path / "test_body.py").write_text(f"def test_it():\n    {body}\n")
    code = f"from tests.warm_pytest import run; print(run({[str(tmp_path)]}, {5 if status is None else None}))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert ended.stdout == f"{status}\n"


def test_shares_are_by_package() -> None:
    results = [
        {"fault": {"file": f"{package}/a.py"}, "noticed": noticed} for package, noticed in (("rtl", 1), ("traces", 0))
    ]
    rows = table(results)
    shown = [list(column.cells) for column in rows.columns]
    assert shown[:3] == [["traces", "rtl", "all"], ["1", "1", "2"], ["0", "1", "1"]]
    assert wilson(8, 10) == pytest.approx((0.490, 0.943), abs=1e-3)
