"""``forestage cache simulate`` with a capacity in MiB."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.study.conftest import Outcome
from tests.traces.test_import_big_moe_on_edge import text_of, toy_rows, write


def test_a_recording_gives_the_bytes_of_its_experts(forestage: Callable[..., Outcome], tmp_path: Path) -> None:
    path = write(tmp_path, text_of(toy_rows()))
    outcome = forestage("cache", "simulate", "--trace", path, "--capacity-mib", 1, "--policy", "lru", "--json")
    assert outcome.status == 0, outcome.err
    (result,) = json.loads(outcome.out)["results"]
    # The model is in no catalogue; the recording's experts take 100, 100 and 90 bytes.
    assert result["loaded_bytes"] < 100 * result["loads"] or result["loads"] == 0
    assert result["capacity_bytes"] == 1 << 20
