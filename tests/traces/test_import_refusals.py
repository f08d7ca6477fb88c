"""What refusals of importers list: what the file holds instead, or that it holds nothing."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.errors import ForestageError
from traces.importers import ImportOptions, import_recording
from traces.importers.assembly.expert_map import read_expert_map
from traces.importers.assembly.table_columns import SHOWN_COLUMNS, shown

Read = Callable[[Path], Any]


def importing(format: str) -> Read:
    return lambda path: import_recording(path, format, ImportOptions(model="own"))


def as_json(names: str) -> bytes:
    return json.dumps({name: [0] for name in names}).encode()


def as_npz(names: str) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **{name: np.zeros(1) for name in names})
    return stream.getvalue()


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (importing("eplb"), as_json, "weight: missing array (found: {})"),
        (importing("npz"), as_npz, "expert_ids: missing array; the archive holds {}"),
        (importing("vllm_offline"), as_json, "routed_experts: missing array; the file holds {};"),
        (read_expert_map, as_json, "last_physical_to_logical_map, log2phy (found: {})"),
    ],
)
@pytest.mark.parametrize(("names", "listed"), [("", "nothing"), ("a", "a"), ("ab", "a, b")])
def test_a_missing_array_is_told_beside_those_that_are_there(
    read: Read, content: Callable[[str], bytes], message: str, names: str, listed: str, tmp_path: Path
) -> None:
    path = tmp_path / "arrays.npz"
    path.write_bytes(content(names))
    with pytest.raises(ForestageError) as caught:
        read(path)
    assert message.format(listed) in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "text"),
    [
        ([], "none"),
        (["a"], "a"),
        (["a", "b  c"], "a, b c"),
        (["x"] * SHOWN_COLUMNS, ", ".join(["x"] * SHOWN_COLUMNS)),
        (["x"] * (SHOWN_COLUMNS + 2), ", ".join(["x"] * SHOWN_COLUMNS) + " and 2 more"),
    ],
)
def test_columns_are_listed_up_to_a_number(columns: list[str], text: str) -> None:
    assert shown(columns) == text
