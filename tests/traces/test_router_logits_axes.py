"""Router logits saved with an axis of the batch, or all layers in one tensor; and what is not finite in them."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file

from catalog.errors import ForestageError
from traces import RoutingTrace
from traces.importers import ImportOptions, import_recording

MIXTRAL = "mistralai/Mixtral-8x7B-Instruct-v0.1"  # 32 layers, 8 experts, top-2
LITE = "deepseek-ai/DeepSeek-V2-Lite"  # 27 layers, of which the first is dense; 64 experts, top-6
BATCH, WIDTH = 2, 5

TOKENS = np.arange(BATCH * WIDTH).reshape(BATCH, WIDTH)
MASK = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
LOGITS = np.random.default_rng(5).normal(0, 1, (32, BATCH * WIDTH, 8)).astype(np.float32)
CHOSEN = np.argsort(-LOGITS, axis=-1)[..., :2].transpose(1, 0, 2)


def saved(path: Path, value: Any) -> Path:
    torch = pytest.importorskip("torch", reason="writes .pt files")

    def tensors(part: Any) -> Any:
        if isinstance(part, np.ndarray):
            return torch.from_numpy(np.ascontiguousarray(part))
        if isinstance(part, dict):
            return {name: tensors(value) for name, value in part.items()}
        return type(part)(tensors(value) for value in part) if isinstance(part, (list, tuple)) else part

    torch.save(tensors(value), path / "l.pt")
    return path / "l.pt"


def trace_in(path: Path, model: str = MIXTRAL, **options: Any) -> RoutingTrace:
    recording = import_recording(path, "hf_router_logits", ImportOptions(model=model, **options)).recording
    assert isinstance(recording, RoutingTrace)
    return recording


def with_axis(batch: int = BATCH) -> tuple[npt.NDArray[Any], ...]:
    return tuple(part.reshape(batch, -1, 8) for part in LOGITS)


# A batch's axis


def test_a_batch_axis_with_its_grid_is_read(tmp_path: Path) -> None:
    trace = trace_in(saved(tmp_path, {"router_logits": with_axis(), "input_ids": TOKENS, "attention_mask": MASK}))
    kept = MASK.reshape(-1) == 1
    np.testing.assert_array_equal(trace.expert_ids, CHOSEN[kept])
    assert trace.sequence_offsets.tolist() == [0, 3, 8]
    assert trace.token_hash is not None
    assert trace.token_hash.tolist() == TOKENS.reshape(-1)[kept].tolist()


def test_a_batch_axis_of_one_sequence_is_read(tmp_path: Path) -> None:
    np.testing.assert_array_equal(trace_in(saved(tmp_path, with_axis(1))).expert_ids, CHOSEN)


def test_a_batch_axis_without_its_grid_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ForestageError, match=r"layer 0: \[2, 5, 8\]: a batch of 2 .*save input_ids and attention_m"):
        trace_in(saved(tmp_path, with_axis()))
    with pytest.raises(ForestageError, match=r"layer 0: \[2, 5, 8\]: a batch of 2, but input_ids .* of 1 sequences"):
        trace_in(saved(tmp_path, {"router_logits": with_axis(), "input_ids": TOKENS.reshape(1, -1)}))
    with pytest.raises(ForestageError, match=r"input_ids: expected integers \[batch, sequence\], 10 in all"):
        trace_in(saved(tmp_path, {"router_logits": with_axis(), "input_ids": TOKENS[:, :4]}))


def test_passes_with_a_batch_axis(tmp_path: Path) -> None:
    passes = [
        {"input_ids": TOKENS[:, :4], "router_logits": tuple(part[:, :4] for part in with_axis())},
        {"input_ids": TOKENS[:, 4:], "router_logits": tuple(part[:, 4:] for part in with_axis())},
    ]
    trace = trace_in(saved(tmp_path, {"passes": passes, "attention_mask": MASK, "pad_token_id": None}))
    np.testing.assert_array_equal(trace.expert_ids, CHOSEN[MASK.reshape(-1) == 1])
    assert trace.phase.tolist() == [0, 0, 1, 0, 0, 0, 0, 1]


# One tensor of all layers


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2)], ids=["layers first", "tokens first"])
def test_one_tensor_of_all_layers_is_read_where_the_grid_tells_its_axes(order: tuple[int, ...], tmp_path: Path) -> None:
    path = saved(tmp_path, {"router_logits": LOGITS.transpose(order), "input_ids": TOKENS})
    np.testing.assert_array_equal(trace_in(path).expert_ids, CHOSEN)
    stack = np.ascontiguousarray(LOGITS.transpose(order))
    save_file({"router_logits": stack, "input_ids": TOKENS}, tmp_path / "l.safetensors")
    np.testing.assert_array_equal(trace_in(tmp_path / "l.safetensors").expert_ids, CHOSEN)


def test_or_where_the_user_names_the_layers(tmp_path: Path) -> None:
    path = saved(tmp_path, LOGITS)
    np.testing.assert_array_equal(trace_in(path, layers=tuple(range(32))).expert_ids, CHOSEN)
    part = saved(tmp_path, LOGITS[3:7])
    trace = trace_in(part, layers=(3, 4, 5, 6))
    np.testing.assert_array_equal(trace.expert_ids, CHOSEN[:, 3:7])
    assert trace.metadata.layer_map == (3, 4, 5, 6)


def test_the_empty_dense_layers_of_a_model_are_left_out(tmp_path: Path) -> None:
    logits = np.random.default_rng(2).normal(0, 1, (27, 10, 64)).astype(np.float32)
    for nothing in (0, np.nan):
        logits[0] = nothing
        trace = trace_in(saved(tmp_path, {"router_logits": logits, "input_ids": TOKENS}), model=LITE)
        np.testing.assert_array_equal(trace.expert_ids, np.argsort(-logits[1:], axis=-1)[..., :6].transpose(1, 0, 2))
    logits[0] = 1
    with pytest.raises(ForestageError, match="layer 0 holds routing, but it is dense"):
        trace_in(saved(tmp_path, {"router_logits": logits, "input_ids": TOKENS}), model=LITE)


def test_what_may_be_a_batch_of_one_layer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ForestageError, match=r"one tensor \[32, 10, 8\], and nothing tells .* a batch of one layer; "):
        trace_in(saved(tmp_path, LOGITS))
    square = LOGITS[:10]
    with pytest.raises(ForestageError, match=r"one tensor \[10, 10, 8\], and nothing tells"):
        trace_in(saved(tmp_path, square), layers=tuple(range(10)))
    one_layer = {"router_logits": LOGITS.reshape(32, 10, 8), "input_ids": np.zeros((32, 10), np.int64)}
    with pytest.raises(ForestageError, match=r"one tensor \[32, 10, 8\], and nothing tells"):
        trace_in(saved(tmp_path, one_layer))
    with pytest.raises(ForestageError, match=r"one tensor \[32, 80\]; expected a tuple"):
        trace_in(saved(tmp_path, LOGITS.reshape(32, -1)))


def test_mixed_names_in_safetensors_are_refused(tmp_path: Path) -> None:
    save_file({"router_logits": LOGITS, "router_logits.0": LOGITS[0]}, tmp_path / "l.safetensors")
    with pytest.raises(ForestageError, match=r"expected one tensor router_logits .* no router_logits.<layer> beside"):
        trace_in(tmp_path / "l.safetensors")


# What is not finite


def test_what_padding_holds_does_not_matter(tmp_path: Path) -> None:
    """A row of attention that sees no token is NaN in several implementations."""
    logits = LOGITS.copy()
    logits[:, :2] = np.nan
    path = saved(tmp_path, {"router_logits": tuple(logits), "input_ids": TOKENS, "attention_mask": MASK})
    np.testing.assert_array_equal(trace_in(path).expert_ids, CHOSEN[MASK.reshape(-1) == 1])


def test_a_token_that_is_not_finite_is_named(tmp_path: Path) -> None:
    logits = LOGITS.copy()
    logits[4, 7, 3] = -np.inf
    path = saved(tmp_path, {"router_logits": tuple(logits), "input_ids": TOKENS, "attention_mask": MASK})
    with pytest.raises(ForestageError, match=r"layer 4, row 7 \(sequence 1, token 2\): -inf of expert 3.*bfloat16 or"):
        trace_in(path)
    with pytest.raises(ForestageError, match="attention_mask: leaves out every token"):
        trace_in(saved(tmp_path, {"router_logits": tuple(LOGITS), "attention_mask": MASK * 0}))
