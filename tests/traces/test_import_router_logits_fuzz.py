"""Damaged files of router logits and biases: refused in one line, or the choice of what they now say."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from catalog.errors import ForestageError
from tests.traces.fuzzing import fuzz
from traces import RoutingTrace
from traces.importers import ImportOptions, import_recording

FUZZ = fuzz()
EXPERTS, TOP_K, LAYERS = 6, 2, 2

GENERATOR = np.random.default_rng(0)
WIDTHS = (3, 1, 1)
BATCH = 2
PASSES = [
    [GENERATOR.normal(size=(BATCH * width, EXPERTS)).astype(np.float32) for _ in range(LAYERS)] for width in WIDTHS
]
TOKENS = [np.arange(BATCH * width).reshape(BATCH, width) + 10 * number for number, width in enumerate(WIDTHS)]
BIAS = GENERATOR.normal(size=(LAYERS, EXPERTS)).astype(np.float32)


def options(bias: Path) -> ImportOptions:
    return ImportOptions(model="our/own", top_k=TOP_K, select="sigmoid", selection_bias=bias, gate_weights="sigmoid")


def attempt(path: Path, bias: Path, format: str = "hf_router_logits") -> RoutingTrace | None:
    """The trace, or ``None`` where it is refused in one line that names a file."""
    try:
        recording = import_recording(path, format, options(bias)).recording
    except ForestageError as error:
        refusal = str(error)
        assert "\n" not in refusal
        assert path.name in refusal or bias.name in refusal
        return None
    assert isinstance(recording, RoutingTrace)
    return recording


def damaged(draw: Any, data: bytes) -> bytes:
    """``data`` cut off, or with a few bytes changed."""
    if draw(st.booleans()) and draw(st.booleans()):
        return data[: draw(st.integers(0, len(data)))]
    made = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        made[draw(st.integers(0, len(made) - 1))] = draw(st.integers(0, 255))
    return bytes(made)


def tensors_in(path: Path) -> dict[str, npt.NDArray[Any]]:
    with safe_open(path, framework="np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def assert_follows(trace: RoutingTrace, rows: list[list[npt.NDArray[Any]]], bias: npt.NDArray[Any]) -> None:
    """Of each token (a row a layer), no expert that was left out has a better score than one that was chosen."""
    assert trace.tokens == len(rows)
    for token, layers in enumerate(rows):
        for layer, values in enumerate(layers):
            scores = 1 / (1 + np.exp(-np.maximum(values.astype(np.float64), -700))) + bias[layer].astype(np.float64)
            chosen = trace.expert_ids[token, layer].tolist()
            others = [score for expert, score in enumerate(scores) if expert not in chosen]
            worst = min(scores[expert] for expert in chosen)
            assert len(set(chosen)) == TOP_K
            assert worst >= max(others) - 1e-6 * max(1, abs(worst))


def in_order(passes: list[list[npt.NDArray[Any]]], widths: tuple[int, ...] = WIDTHS) -> list[list[npt.NDArray[Any]]]:
    """Rows by sequence, pass and place."""
    return [
        [layer[sequence * width + place] for layer in layers]
        for sequence in range(BATCH)
        for layers, width in zip(passes, widths, strict=True)
        for place in range(width)
    ]


@FUZZ
@given(st.data())
def test_bytes_of_a_generation(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "passes.safetensors"
    bias = path.with_name("bias.npy")
    np.save(bias, BIAS)
    tensors = {"pad_token_id": np.array([-1])}
    for number, layers in enumerate(PASSES):
        tensors |= {f"{number}.router_logits.{n}": layer for n, layer in enumerate(layers)}
        tensors[f"{number}.input_ids"] = TOKENS[number]
    save_file(tensors, path)
    path.write_bytes(damaged(data.draw, path.read_bytes()))
    trace = attempt(path, bias)
    if trace is None or trace.tokens != BATCH * sum(WIDTHS):
        return  # a byte of pad_token_id was changed, and ends a sequence
    said = tensors_in(path)
    passes = [[said[f"{number}.router_logits.{n}"] for n in range(LAYERS)] for number in range(len(WIDTHS))]
    assert_follows(trace, in_order(passes), BIAS)


@FUZZ
@given(st.data())
def test_bytes_of_a_bias(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "pass.safetensors"
    bias = path.with_name("bias.safetensors")
    save_file({**{f"router_logits.{n}": PASSES[0][n] for n in range(LAYERS)}, "input_ids": TOKENS[0]}, path)
    save_file({f"model.layers.{n}.mlp.gate.e_score_correction_bias": BIAS[n] for n in range(LAYERS)}, bias)
    bias.write_bytes(damaged(data.draw, bias.read_bytes()))
    trace = attempt(path, bias)
    if trace is None:
        return
    said = tensors_in(bias)
    by_number = sorted(said, key=lambda name: int(name.partition("layers.")[2].partition(".")[0]))
    stated = np.stack([said[name] for name in by_number]).reshape(LAYERS, EXPERTS)
    assert_follows(trace, in_order(PASSES[:1], WIDTHS[:1]), stated)


PARTS = st.sampled_from(
    [None, 7, "x", [], {}, np.zeros((2, 3)), np.zeros((2, EXPERTS), np.int64), np.zeros(4), np.ones((1, 1, EXPERTS)),
     np.full((2, EXPERTS), np.nan), [np.zeros((2, EXPERTS))], np.full((BATCH, 1), -4)]
)  # fmt: skip


@FUZZ
@given(st.data())
def test_parts_of_a_generation(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """A part is replaced, taken out or repeated; what is still read is what is left."""
    torch = pytest.importorskip("torch", reason="writes .pt files")
    path = tmp_path_factory.getbasetemp() / "passes.pt"
    bias = path.with_name("bias.npy")
    np.save(bias, BIAS)
    passes: list[Any] = [
        {"input_ids": tokens, "router_logits": list(layers)} for tokens, layers in zip(TOKENS, PASSES, strict=True)
    ]
    value: Any = {"passes": passes, "pad_token_id": None}
    number = data.draw(st.integers(0, len(passes) - 1))
    kind = data.draw(st.sampled_from(["layer", "tokens", "pass", "drop", "repeat", "top"]))
    if kind == "layer":
        passes[number]["router_logits"][data.draw(st.integers(0, LAYERS - 1))] = data.draw(PARTS)
    elif kind == "tokens":
        passes[number][data.draw(st.sampled_from(["input_ids", "attention_mask", "router_logits"]))] = data.draw(PARTS)
    elif kind == "pass":
        passes[number] = data.draw(PARTS)
    elif kind == "drop":
        del passes[number]
    elif kind == "repeat":
        passes.insert(number, copy.deepcopy(passes[number]))
    else:
        value[data.draw(st.sampled_from(["passes", "pad_token_id", "sequences", "router_logits"]))] = data.draw(PARTS)
    torch.save(tensors_of(value, torch), path)
    trace = attempt(path, bias)
    if trace is None:
        return
    kept = value["passes"]
    widths = tuple(len(part["router_logits"][0]) // BATCH for part in kept)
    assert_follows(trace, in_order([part["router_logits"] for part in kept], widths), BIAS)


def tensors_of(value: Any, torch: Any) -> Any:
    """``value`` with tensors for arrays."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if isinstance(value, dict):
        return {name: tensors_of(part, torch) for name, part in value.items()}
    return [tensors_of(part, torch) for part in value] if isinstance(value, list) else value


@FUZZ
@given(st.data())
def test_bytes_of_llama_cpps_scores(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "dump.npz"
    bias = path.with_name("bias.npy")
    np.save(bias, BIAS)
    layers = [layer.copy() for layer in PASSES[0]]
    changed = data.draw(st.sampled_from([0.0, np.nan, -np.inf, 1e38, -1e38, 3.0]))
    layers[data.draw(st.integers(0, 1))][data.draw(st.integers(0, 5)), data.draw(st.integers(0, 5))] = changed
    kept = data.draw(st.integers(1, 6))
    np.savez(path, **{f"ffn_moe_logits-{n}": layer[: kept if n else 6] for n, layer in enumerate(layers)})
    trace = attempt(path, bias, "llama_cpp_dump")
    if trace is None:
        assert not np.isfinite(changed) or 1 < kept < 6
        return
    recorded = trace.recorded()
    assert recorded[:, 0].all()
    if kept == 6:
        assert_follows(trace, [[layer[token] for layer in layers] for token in range(6)], BIAS)
    else:
        assert recorded[:, 1].tolist() == [False] * 5 + [True]
