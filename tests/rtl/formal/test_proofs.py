"""The proofs of the hardware: the quick ones are made, and each is seen to fail on a faulty circuit."""

import pytest

from catalog.errors import ForestageError
from rtl.formal.proof import Verdict
from rtl.formal.registry import TASKS, task_of

QUICK = [name for name, task in TASKS.items() if task.quick]


@pytest.mark.parametrize("name", QUICK)
def test_a_proof_holds_and_can_fail(name: str) -> None:
    verdict = TASKS[name].run(enough_noticed=1)
    assert TASKS[name].shortcoming(verdict) == ""
    assert verdict.noticed == 1


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(set(TASKS) - set(QUICK)))
def test_a_long_proof_holds_and_can_fail(name: str) -> None:
    assert TASKS[name].shortcoming(TASKS[name].run(enough_noticed=1)) == ""


def test_a_verdict_that_falls_short_says_of_what() -> None:
    task = task_of("axi-lite-slave")
    verdict = Verdict(name="x", checks=1, depth=4, seconds=0.1, induction=1, faults=3, noticed=1)
    assert task.shortcoming(verdict) == ""
    fields = verdict.model_dump()
    assert "broken in cycle 3: a; b" in task.shortcoming(Verdict(**fields | {"refuted": ("a", "b"), "cycle": 3}))
    assert "does not close: c" in task.shortcoming(Verdict(**fields | {"induction": None, "open": ("c",)}))
    assert "it cannot fail" in task.shortcoming(Verdict(**fields | {"noticed": 0}))


def test_an_unknown_proof_names_the_nearest() -> None:
    with pytest.raises(ForestageError, match="'axi-lite-slave'"):
        task_of("axi-slave")
