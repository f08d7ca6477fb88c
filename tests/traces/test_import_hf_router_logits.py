"""transformers' router logits, as ``output_router_logits=True`` returns them and a user saves them."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file

from catalog.errors import ForestageError
from traces import PREFILL, RoutingTrace
from traces.importers import Imported, ImportOptions, import_recording, sniff_format

MIXTRAL = "mistralai/Mixtral-8x7B-v0.1"  # 32 layers, 8 experts, top-2, weights normalised
OLMOE = "allenai/OLMoE-1B-7B-0924"  # 16 layers, 64 experts, top-8, weights raw
Logits = npt.NDArray[np.float32]


def logits_of(rows: int, layers: int, experts: int, seed: int = 0) -> list[Logits]:
    generator = np.random.default_rng(seed)
    return [generator.normal(0, 2, (rows, experts)).astype(np.float32) for _ in range(layers)]


def write(folder: Path, layers: list[Any], **others: npt.NDArray[Any]) -> Path:
    path = folder / "logits.safetensors"
    save_file({**{f"router_logits.{n}": part for n, part in enumerate(layers)}, **others}, path)
    return path


def trace_in(path: Path, **options: Any) -> tuple[RoutingTrace, Imported]:
    imported = import_recording(path, options=ImportOptions(**options))
    assert isinstance(imported.recording, RoutingTrace)
    return imported.recording, imported


def assert_routes(trace: RoutingTrace, layers: list[Logits], rows: list[int], *, normalised: bool) -> None:
    """Every choice, recomputed row by row in float64; of equal logits, the smaller id comes first."""
    assert trace.gate_weights is not None
    for token, row in enumerate(rows):
        for layer, logits in enumerate(layers):
            chances = np.exp(logits[row].astype(np.float64))
            chances /= chances.sum()
            best = sorted(range(len(chances)), key=lambda expert: -chances[expert])[: trace.top_k]
            weights = chances[best] / (chances[best].sum() if normalised else 1)
            assert trace.expert_ids[token, layer].tolist() == best
            np.testing.assert_allclose(trace.gate_weights[token, layer], weights, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize(("model", "shape", "normalised"), [(MIXTRAL, (32, 8), True), (OLMOE, (16, 64), False)])
def test_choices_follow_from_the_logits(model: str, shape: tuple[int, int], normalised: bool, tmp_path: Path) -> None:
    layers = logits_of(5, *shape)
    path = write(tmp_path, layers)
    assert sniff_format(path) == "hf_router_logits"
    trace, imported = trace_in(path, model=model)
    assert_routes(trace, layers, list(range(5)), normalised=normalised)
    assert trace.metadata.gate_weight_kind == ("normalised" if normalised else "softmax")
    assert (trace.metadata.ranked, trace.sequences, trace.token_hash) == (True, 1, None)
    assert np.all(trace.phase == PREFILL)
    assert [line.split(": ", 1)[1] for line in imported.warnings] == [
        "neither input_ids nor attention_mask: all 5 rows are taken as one sequence; wrong of a batch"
    ]


def test_a_padded_batch_becomes_sequences(tmp_path: Path) -> None:
    layers = logits_of(8, 32, 8)
    tokens = np.arange(100, 108).reshape(2, 4)
    mask = np.array([[0, 0, 1, 1], [1, 1, 1, 1]])
    trace, _ = trace_in(write(tmp_path, layers, input_ids=tokens, attention_mask=mask), model=MIXTRAL)
    assert_routes(trace, layers, [2, 3, 4, 5, 6, 7], normalised=True)
    assert trace.sequence_offsets.tolist() == [0, 2, 6]
    assert trace.position.tolist() == [0, 1, 0, 1, 2, 3]
    assert trace.token_hash is not None
    assert trace.token_hash.tolist() == [102, 103, 104, 105, 106, 107]


def test_the_tuple_and_the_dictionary_of_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="writes .pt files")
    layers = [torch.from_numpy(part).bfloat16() for part in logits_of(6, 32, 8)]
    rounded = [part.float().numpy() for part in layers]
    path = tmp_path / "logits.pt"
    torch.save(tuple(layers), path)
    assert sniff_format(path) == "hf_router_logits"
    trace, imported = trace_in(path, model=MIXTRAL)
    assert_routes(trace, rounded, list(range(6)), normalised=True)
    assert any("all 6 rows are taken as one sequence" in warning for warning in imported.warnings)
    torch.save({"router_logits": tuple(layers), "input_ids": torch.arange(6).reshape(2, 3)}, path)
    assert sniff_format(path) == "hf_router_logits"
    again, imported = trace_in(path, model=MIXTRAL)
    np.testing.assert_array_equal(again.expert_ids, trace.expert_ids)
    assert again.sequence_offsets.tolist() == [0, 3, 6]
    assert not any("one sequence" in warning for warning in imported.warnings)


def test_bfloat16_in_safetensors(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="reads bfloat16")
    layers = logits_of(3, 32, 8)
    bits = [(part.view(np.uint32) >> 16).astype(np.uint16) for part in layers]
    header, data = {}, b""
    for layer, part in enumerate(bits):
        header[f"router_logits.{layer}"] = {
            "dtype": "BF16", "shape": list(part.shape), "data_offsets": [len(data), len(data) + part.nbytes],
        }  # fmt: skip
        data += part.tobytes()
    text = json.dumps(header).encode()
    path = tmp_path / "logits.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    rounded = [(part.astype(np.uint32) << 16).view(np.float32) for part in bits]
    trace, _ = trace_in(path, model=MIXTRAL)
    assert_routes(trace, rounded, [0, 1, 2], normalised=True)


def test_logits_that_are_probabilities_already_give_the_same(tmp_path: Path) -> None:
    layers = logits_of(5, 16, 64)
    expected, _ = trace_in(write(tmp_path, layers), model=OLMOE)
    chances = [np.exp(part) / np.exp(part).sum(axis=1, keepdims=True) for part in layers]
    trace, _ = trace_in(write(tmp_path, chances), model=OLMOE)
    np.testing.assert_array_equal(trace.expert_ids, expected.expert_ids)
    assert trace.gate_weights is not None
    np.testing.assert_allclose(trace.gate_weights, expected.gate_weights, rtol=2e-3)
    with pytest.raises(ForestageError, match="some layers are logits, others sum to 1"):
        trace_in(write(tmp_path, [*layers[:8], *chances[8:]]), model=OLMOE)
    with pytest.raises(ForestageError, match="some layers are logits, others sum to 1"):
        trace_in(write(tmp_path, [*chances[:8], *layers[8:]]), model=OLMOE)


def test_a_tie_at_the_edge_of_the_choice_is_told(tmp_path: Path) -> None:
    layers = logits_of(5, 32, 8)
    layers[3][2] = [5, 4, 4, 0, 1, 2, 3, -1]
    layers[4][2] = [5, 5, 4, 0, 1, 2, 3, -1]  # both are chosen: no matter
    _, imported = trace_in(write(tmp_path, layers), model=MIXTRAL)
    assert any("in 1 rows (token, layer) the last chosen" in warning for warning in imported.warnings)


def test_a_model_of_ones_own_needs_its_top_k_and_rule(tmp_path: Path) -> None:
    layers = logits_of(5, 3, 8)
    path = write(tmp_path, layers)
    with pytest.raises(ForestageError, match="import it with --top-k"):
        trace_in(path, model="our/own")
    with pytest.raises(ForestageError, match="how our/own chooses its experts is not known; say it: --select logits"):
        trace_in(path, model="our/own", top_k=3)
    for kind in ("normalised", "softmax"):
        trace, _ = trace_in(path, model="our/own", top_k=3, select="logits", gate_weights=kind, layers=(1, 3, 5))
        assert_routes(trace, layers, list(range(5)), normalised=kind == "normalised")
        assert trace.metadata.gate_weight_kind == kind
        assert trace.metadata.layer_map == (1, 3, 5)


def test_models_that_choose_by_more_than_logits_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ForestageError, match="chooses by more than the logits"):
        trace_in(write(tmp_path, logits_of(2, 58, 256)), model="deepseek-ai/DeepSeek-V3")


def bad(layers: list[Logits], layer: int, value: float) -> list[Logits]:
    layers[layer][1, 0] = value
    return layers


NOT_FINITE = r"layer 3, row 1 \(token 1\): (nan|inf) of expert 0, not finite.* attention_mask"

FAULTS: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "nan": (bad(logits_of(4, 32, 8), 3, np.nan), {}, NOT_FINITE),
    "infinite": (bad(logits_of(4, 32, 8), 3, np.inf), {}, NOT_FINITE),
    "rows differ": ([*logits_of(4, 31, 8), *logits_of(5, 1, 8)], {}, r"layer 31: \[5, 8\], but layer 0"),
    "shape": ([np.ones(8, np.float32)] * 32, {}, r"expected \[batch"),
    "integers": ([np.ones((4, 8), np.int32)] * 32, {}, "int32; expected floating-point"),
    "layers": (logits_of(4, 31, 8), {}, "31 layers, but Mixtral-8x7B has 32"),
    "experts": (logits_of(4, 32, 9), {}, "9 experts, but Mixtral-8x7B has 8"),
    "tokens": (logits_of(4, 32, 8), {"input_ids": np.ones((1, 5), np.int64)}, "input_ids: expected integers"),
    "mask": (logits_of(4, 32, 8), {"attention_mask": np.full((2, 2), 2)}, "attention_mask: expected 0 or 1"),
    "mask shape": (
        logits_of(4, 32, 8),
        {"attention_mask": np.ones((2, 2), np.int64), "input_ids": np.ones((1, 4), np.int64)},
        "its shape differs from that of input_ids",
    ),
    "negative token": (logits_of(4, 32, 8), {"input_ids": np.full((1, 4), -5)}, r"token ids\[0\]: -5"),
    "all masked": (logits_of(4, 32, 8), {"attention_mask": np.zeros((1, 4), np.int64)}, "leaves out every token"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_file_is_refused_in_one_line(fault: str, tmp_path: Path) -> None:
    layers, others, message = FAULTS[fault]
    with pytest.raises(ForestageError, match=rf"logits\.safetensors: .*{message}") as caught:
        trace_in(write(tmp_path, layers, **others), model=MIXTRAL)
    assert "\n" not in str(caught.value)


def test_a_gap_in_the_layers_is_refused(tmp_path: Path) -> None:
    parts = logits_of(4, 3, 8)
    path = tmp_path / "logits.safetensors"
    save_file({"router_logits.0": parts[0], "router_logits.2": parts[2]}, path)
    with pytest.raises(ForestageError, match="without a gap"):
        trace_in(path, model=MIXTRAL)


def test_a_bare_tuple_of_views_of_one_tensor_is_known(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="writes .pt files")
    path = tmp_path / "logits.pt"
    torch.save(tuple(torch.from_numpy(np.stack(logits_of(5, 32, 8)))), path)
    assert sniff_format(path) == "hf_router_logits"
    torch.save(torch.ones(3, 4), path)
    with pytest.raises(ForestageError, match="of no known recording"):
        sniff_format(path)


def test_an_array_file_of_numpy_is_refused_with_what_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "l.npz", **{f"router_logits.{n}": part for n, part in enumerate(logits_of(5, 32, 8))})
    with pytest.raises(ForestageError, match=r"a NumPy file, in which no router logits are read; save them with torch"):
        import_recording(tmp_path / "l.npz", "hf_router_logits", ImportOptions(model=MIXTRAL))


def test_ids_that_follow_from_logits_are_not_asked_where_they_count_from(tmp_path: Path) -> None:
    layers = logits_of(40, 32, 8)
    for part in layers:
        part[:, 0] = -50
    _, imported = trace_in(write(tmp_path, layers), model=MIXTRAL)
    assert any("no row has expert 0" in warning for warning in imported.warnings)
    assert not any("count from 1" in warning for warning in imported.warnings)
