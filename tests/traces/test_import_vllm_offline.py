"""vLLM's offline outputs: an ``.npz`` a request."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.errors import ForestageError
from tests.traces.recorded_ids import random_ids, with_dense
from traces import DECODE, PREFILL, RoutingTrace
from traces.importers import Imported, ImportOptions, import_recording, sniff_format

LITE = "deepseek-ai/DeepSeek-V2-Lite"  # 27 layers, the first dense; 64 experts, top-6


def save(path: Path, prompt: int = 4, generated: int = 3, **arrays: Any) -> dict[str, Any]:
    """A request whose last generated token was not processed."""
    made = {
        "routed_experts": random_ids(prompt + generated - 1, 26, 6, 64, seed=prompt).astype(np.int16),
        "request_id": path.stem,
        "prompt_token_ids": np.arange(prompt),
        "output_token_ids": np.arange(generated) + 100,
        **arrays,
    }
    np.savez(path, **{name: value for name, value in made.items() if value is not None})
    return made


def trace_in(path: Path, **options: Any) -> tuple[RoutingTrace, Imported]:
    imported = import_recording(path, options=ImportOptions(**options))
    assert isinstance(imported.recording, RoutingTrace)
    return imported.recording, imported


def test_a_folder_of_requests_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    made = {number: save(tmp_path / f"request_{number}.npz", prompt=number) for number in (2, 10, 9)}
    assert sniff_format(tmp_path) == "vllm_offline"
    trace, imported = trace_in(tmp_path, model=LITE)
    assert trace.token_hash is not None
    for index, number in enumerate((2, 9, 10)):
        part = trace.sequence_slice(index)
        np.testing.assert_array_equal(trace.expert_ids[part], made[number]["routed_experts"])
        assert trace.phase[part].tolist() == [PREFILL] * number + [DECODE] * 2
        assert trace.token_hash[part].tolist() == [*range(number), 100, 101]
    assert any("the last token of 3 sequences" in warning for warning in imported.warnings)


def test_a_single_request_is_no_recording_of_our_own(tmp_path: Path) -> None:
    made = save(tmp_path / "r.npz")
    assert sniff_format(tmp_path / "r.npz") == "vllm_offline"
    np.testing.assert_array_equal(trace_in(tmp_path / "r.npz", model=LITE)[0].expert_ids, made["routed_experts"])
    np.savez(tmp_path / "own.npz", expert_ids=made["routed_experts"], seq_offsets=np.array([0, 6]))
    assert sniff_format(tmp_path / "own.npz") == "npz"


def test_dense_layers_prompts_apart_and_cached_tokens(tmp_path: Path) -> None:
    ids = random_ids(6, 26, 6, 64)
    save(tmp_path / "a.npz", routed_experts=with_dense(ids, 1))
    np.testing.assert_array_equal(trace_in(tmp_path / "a.npz", model=LITE)[0].expert_ids, ids)
    save(tmp_path / "b.npz", routed_experts=ids[4:], prompt_routed_experts=ids[:4])
    np.testing.assert_array_equal(trace_in(tmp_path / "b.npz", model=LITE)[0].expert_ids, ids)
    save(tmp_path / "c.npz", routed_experts=ids[2:], num_cached_tokens=2)
    trace, imported = trace_in(tmp_path / "c.npz", model=LITE)
    assert trace.position.tolist() == [2, 3, 4, 5]
    assert any("2 cached tokens at the beginning of 1 sequences" in warning for warning in imported.warnings)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"prompt_token_ids": None}, "prompt_token_ids: missing array"),
        ({"output_token_ids": None}, "output_token_ids: missing array"),
        ({"output_token_ids": np.arange(9)}, "6 rows for 9 generated tokens after a prompt of 4"),
        ({"output_token_ids": np.ones(3)}, r"output_token_ids: float64 \[3\]; expected whole numbers"),
        ({"prompt_token_ids": np.array([-1, 2, 3, 4])}, "prompt_token_ids: int64"),
        ({"routed_experts": np.ones((6, 26), np.int16)}, r"routed_experts: int16 \[6, 26\]; expected integers"),
        ({"routed_experts": np.ones((6, 26, 6))}, r"routed_experts: float64"),
        ({"routed_experts": np.zeros((0, 26, 6), np.int16)}, "routed_experts: missing array"),
        ({"num_cached_tokens": np.ones(2)}, r"num_cached_tokens: float64 \[2\]"),
        ({"prompt_routed_experts": random_ids(5, 26, 6, 64)}, "prompt_routed_experts: 5 rows, but prompt_token_ids"),
    ],
)
def test_a_faulty_request_is_refused_in_one_line(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    save(tmp_path / "r.npz", **arrays)
    with pytest.raises(ForestageError, match=rf"r\.npz: .*{message}") as caught:
        trace_in(tmp_path / "r.npz", model=LITE)
    assert "\n" not in str(caught.value)


def test_a_copy_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ForestageError, match=r"holds no \.npz file"):
        import_recording(tmp_path, "vllm_offline")
    save(tmp_path / "a.npz", request_id="x")
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes())
    with pytest.raises(ForestageError, match=r"b\.npz: the same request as a\.npz"):
        trace_in(tmp_path, model=LITE)
    (tmp_path / "b.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:500])
    with pytest.raises(ForestageError, match=r"b\.npz: damaged"):
        trace_in(tmp_path, model=LITE)


def test_rows_that_fit_two_beginnings_are_read_as_the_remedy_says(tmp_path: Path) -> None:
    ids = random_ids(3, 26, 6, 64)
    save(tmp_path / "r.npz", routed_experts=ids)
    with pytest.raises(
        ForestageError, match=r"3 rows may be .*num_cached_tokens 3, if .*an array start with the first"
    ):
        trace_in(tmp_path / "r.npz", model=LITE)
    for said, first in (({"num_cached_tokens": 3}, 3), ({"start": 3}, 3), ({"start": 4}, 4)):
        save(tmp_path / "r.npz", routed_experts=ids, **said)
        assert trace_in(tmp_path / "r.npz", model=LITE)[0].position.tolist() == list(range(first, first + 3))
    save(tmp_path / "r.npz", routed_experts=ids, start=-1)
    with pytest.raises(ForestageError, match=r"r\.npz: start: int64 \[\]; expected a whole number"):
        trace_in(tmp_path / "r.npz", model=LITE)
