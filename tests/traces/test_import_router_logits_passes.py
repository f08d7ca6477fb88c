"""Router logits of several forward passes, padded batches, and dense layers among the others."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file

from catalog.errors import ForestageError
from traces import DECODE, PREFILL, RoutingTrace
from traces.importers import Imported, ImportOptions, import_recording, sniff_format

LAYERS, EXPERTS = 2, 8
WIDTHS = (4, 1, 1, 1)
"""Tokens of each sequence in each pass: a prompt, three decode steps."""

TOKENS = np.array([[0, 0, 11, 12, 13, 14, 15], [20, 21, 22, 23, 24, 9, 9]])
"""Two sequences: the first is padded on the left, the second ends, and is padded with 9, before the first does."""

MASK = np.array([[0, 0, 1, 1], [1, 1, 1, 1]])


def logits_of(token: int, layer: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng([token, layer]).normal(0, 2, EXPERTS).astype(np.float32)


def layers_of(tokens: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float32], ...]:
    """What transformers returns of a pass over ``tokens [batch, width]``."""
    return tuple(np.stack([logits_of(t, layer) for t in tokens.reshape(-1)]) for layer in range(LAYERS))


def grids(tokens: npt.NDArray[Any] = TOKENS) -> list[npt.NDArray[Any]]:
    """The tokens of each pass."""
    ends = np.cumsum(WIDTHS)
    return [tokens[:, end - width : end] for width, end in zip(WIDTHS, ends, strict=True)]


def save(path: Path, value: Any) -> Path:
    torch = pytest.importorskip("torch", reason="writes .pt files")

    def tensors(part: Any) -> Any:
        if isinstance(part, np.ndarray):
            return torch.from_numpy(np.ascontiguousarray(part))
        if isinstance(part, dict):
            return {name: tensors(value) for name, value in part.items()}
        return type(part)(tensors(value) for value in part) if isinstance(part, (list, tuple)) else part

    torch.save(tensors(value), path)
    return path


def read(path: Path, **options: Any) -> Imported:
    given = {"model": "our/own", "top_k": 2, "select": "logits", "gate_weights": "normalised", **options}
    assert sniff_format(path) == "hf_router_logits"
    return import_recording(path, options=ImportOptions.parse(given, origin="test"))


def trace_in(path: Path, **options: Any) -> RoutingTrace:
    recording = read(path, **options).recording
    assert isinstance(recording, RoutingTrace)
    return recording


def assert_tokens(trace: RoutingTrace, sequences: list[list[int]]) -> None:
    """Every token has the choice of its own logits, and its identity where the trace has it."""
    order = [token for sequence in sequences for token in sequence]
    assert trace.sequence_offsets.tolist() == np.cumsum([0, *map(len, sequences)]).tolist()
    assert trace.position.tolist() == [n for sequence in sequences for n in range(len(sequence))]
    if trace.token_hash is not None:
        assert trace.token_hash.tolist() == order
    for row, token in enumerate(order):
        for layer in range(LAYERS):
            assert trace.expert_ids[row, layer].tolist() == np.argsort(-logits_of(token, layer))[:2].tolist()


GENERATED = [[11, 12, 13, 14, 15], [20, 21, 22, 23, 24]]
PHASES = [PREFILL] * 2 + [DECODE] * 3 + [PREFILL] * 4 + [DECODE]


def test_passes_as_a_hook_keeps_them(tmp_path: Path) -> None:
    passes = [{"input_ids": part, "router_logits": layers_of(part)} for part in grids()]
    path = save(tmp_path / "l.pt", {"passes": passes, "attention_mask": MASK, "pad_token_id": 9})
    trace = trace_in(path)
    assert_tokens(trace, GENERATED)
    assert trace.phase.tolist() == PHASES
    whole = np.concatenate([MASK, np.ones((2, 3), int)], axis=1)
    masked = [{**part, "attention_mask": whole[:, :end]} for part, end in zip(passes, np.cumsum(WIDTHS), strict=True)]
    assert_tokens(trace_in(save(path, {"passes": masked, "pad_token_id": 9})), GENERATED)
    assert_tokens(trace_in(save(path, {"passes": passes, "attention_mask": whole, "pad_token_id": 9})), GENERATED)


@pytest.mark.parametrize("last", [0, 1], ids=["processed", "with the last, which is not"])
def test_a_tuple_of_tuples_with_sequences(last: int, tmp_path: Path) -> None:
    steps = tuple(layers_of(part) for part in grids())
    sequences = np.concatenate([TOKENS, np.full((2, last), 9)], axis=1)
    values = {"router_logits": steps, "sequences": sequences, "attention_mask": MASK, "pad_token_id": 9}
    trace = trace_in(save(tmp_path / "l.pt", values))
    assert_tokens(trace, GENERATED)
    assert trace.phase.tolist() == PHASES


def test_a_bare_tuple_of_tuples_is_one_sequence_and_told(tmp_path: Path) -> None:
    steps = tuple(layers_of(part) for part in grids(TOKENS[1:, :]))
    imported = read(save(tmp_path / "l.pt", steps))
    assert isinstance(imported.recording, RoutingTrace)
    assert_tokens(imported.recording, [TOKENS[1].tolist()])
    assert imported.recording.phase.tolist() == [PREFILL] * 4 + [DECODE] * 3
    assert any("all 7 rows are taken as one sequence" in line for line in imported.warnings)


def test_passes_in_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "l.safetensors"
    tensors: dict[str, Any] = {"attention_mask": MASK, "pad_token_id": np.array([9])}
    for number, part in enumerate(grids()):
        tensors[f"{number}.input_ids"] = np.ascontiguousarray(part)
        tensors |= {f"{number}.router_logits.{n}": layer for n, layer in enumerate(layers_of(part))}
    save_file(tensors, path)
    assert_tokens(trace_in(path), GENERATED)
    save_file({name: part for name, part in tensors.items() if not name.startswith("2.")}, path)
    with pytest.raises(ForestageError, match="without a gap"):
        read(path)


def test_pieces_of_a_prompt_are_prefill(tmp_path: Path) -> None:
    row = TOKENS[1:, :]
    passes = [{"input_ids": part, "router_logits": layers_of(part)} for part in (row[:, :3], row[:, 3:5], row[:, 5:6])]
    trace = trace_in(save(tmp_path / "l.pt", passes))
    assert_tokens(trace, [[20, 21, 22, 23, 24, 9]])
    assert trace.phase.tolist() == [PREFILL] * 5 + [DECODE]


def test_without_padding_every_token_counts(tmp_path: Path) -> None:
    passes = [{"input_ids": part, "router_logits": layers_of(part)} for part in grids()]
    trace = trace_in(save(tmp_path / "l.pt", {"passes": passes, "pad_token_id": None}))
    assert_tokens(trace, TOKENS.tolist())


def test_one_pass_is_of_the_phase_that_is_said(tmp_path: Path) -> None:
    one = {"input_ids": TOKENS[1:], "router_logits": layers_of(TOKENS[1:])}
    path = save(tmp_path / "l.pt", one)
    assert set(trace_in(path).phase.tolist()) == {PREFILL}
    assert set(trace_in(path, phase="decode").phase.tolist()) == {DECODE}
    passes = [{"input_ids": part, "router_logits": layers_of(part)} for part in grids(TOKENS[1:])]
    with pytest.raises(ForestageError, match="--phase: the file has 4 passes, which tell"):
        read(save(path, passes), phase="decode")


def test_a_batch_without_a_mask_is_told(tmp_path: Path) -> None:
    one = {"input_ids": TOKENS, "router_logits": layers_of(TOKENS)}
    path = tmp_path / "l.pt"
    assert any("2 sequences without attention_mask: padding" in line for line in read(save(path, one)).warnings)
    assert read(save(path, {**one, "attention_mask": np.ones_like(TOKENS)})).warnings == ()
    single = {"input_ids": TOKENS[:1], "router_logits": layers_of(TOKENS[:1])}
    assert read(save(path, single)).warnings == ()
    passes = [{"input_ids": part, "router_logits": layers_of(part)} for part in grids()]
    values = {"passes": passes, "attention_mask": MASK, "pad_token_id": 9}
    assert read(save(path, values)).warnings == ()


@pytest.mark.parametrize("mask", [[1, 1, 0, 1, 1, 0, 0], [0, 1, 0, 1, 1, 1, 1]])
def test_a_hole_in_the_mask_is_refused_and_does_not_make_neighbours(mask: list[int], tmp_path: Path) -> None:
    tokens = np.arange(14).reshape(2, 7)
    masks = np.array([[1] * 7, mask])
    path = save(
        tmp_path / "hole.pt", {"router_logits": layers_of(tokens), "input_ids": tokens, "attention_mask": masks}
    )
    with pytest.raises(ForestageError, match=r"attention_mask: sequence 1, token 2: 0 between tokens that are 1"):
        read(path)


def test_padding_between_a_prompt_and_what_was_generated_is_no_hole(tmp_path: Path) -> None:
    """A batch padded on the right goes on with generated tokens, which follow the prompt's."""
    masks = np.array([[1, 1, 0, 0], [1, 1, 1, 1]])
    passes = [{"router_logits": layers_of(part), "input_ids": part} for part in grids()]
    path = save(tmp_path / "p.pt", {"passes": passes, "attention_mask": masks, "pad_token_id": None})
    trace = trace_in(path)
    assert trace.sequence_offsets.tolist() == [0, 5, 12]


def test_padding_on_the_right_is_left_out(tmp_path: Path) -> None:
    one = {"input_ids": TOKENS, "router_logits": layers_of(TOKENS), "attention_mask": (TOKENS < 15) & (TOKENS > 9)}
    assert_tokens(trace_in(save(tmp_path / "l.pt", one)), [[11, 12, 13, 14]])
    mask = np.array([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0]], bool)
    assert_tokens(trace_in(save(tmp_path / "l.pt", {**one, "attention_mask": mask})), GENERATED)


@pytest.mark.parametrize("dense", [None, np.zeros((14, 1), np.float32)], ids=["None", "one column"])
def test_dense_layers_keep_their_place(dense: Any, tmp_path: Path) -> None:
    layers = layers_of(TOKENS)
    values = {"input_ids": TOKENS, "router_logits": (dense, layers[0], dense, layers[1])}
    trace = trace_in(save(tmp_path / "l.pt", values))
    assert_tokens(trace, TOKENS.tolist())
    assert trace.metadata.layer_map == (1, 3)
    assert trace_in(tmp_path / "l.pt", layers=(5, 7)).metadata.layer_map == (5, 7)


def test_a_layer_that_the_model_has_and_the_file_lacks_is_refused(tmp_path: Path) -> None:
    layers = [np.random.default_rng(n).normal(size=(4, 64)).astype(np.float32) for n in range(27)]
    for lacking, message in (
        ((0,), None),
        ((0, 5), "router_logits of layer 5: none, but"),
        ((), "layer 0 holds routing"),
    ):
        values = tuple(None if n in lacking else layer for n, layer in enumerate(layers))
        path = save(tmp_path / "l.pt", {"router_logits": values})
        if message is None:
            trace = trace_in(path, model="DeepSeek-V2-Lite", top_k=None, select=None, gate_weights=None)
            assert trace.metadata.layer_map == tuple(range(1, 27))
        else:
            with pytest.raises(ForestageError, match=message):
                read(path, model="DeepSeek-V2-Lite", top_k=None, select=None, gate_weights=None)


def with_pass(number: int, **changes: Any) -> list[dict[str, Any]]:
    passes = [{"input_ids": part, "router_logits": layers_of(part)} for part in grids()]
    passes[number] |= changes
    return passes


SWITCH = ((np.ones((1, 4, 8), np.float32), np.ones((1, 4), np.int64)),) * 3
"""As older versions return router logits of Switch: a pair a layer."""

FAULTS: dict[str, tuple[Any, str]] = {
    "padding not said": ({"passes": with_pass(0)}, "pad_token_id: missing: while some of the 2 sequences"),
    "padding is text": ({"passes": with_pass(0), "pad_token_id": "9"}, "pad_token_id: expected a token's index"),
    "another prompt": (
        [{"input_ids": part, "router_logits": layers_of(part)} for part in (*grids()[:2], grids()[0])],
        "pass 2 is of 4 tokens, after one of a single token",
    ),
    "unknown batch": (
        [{"router_logits": layers_of(part)} for part in grids()],
        "pass 1 has 2 rows, of as many sequences or tokens: save input_ids",
    ),
    "layers differ": (
        with_pass(2, router_logits=layers_of(grids()[2])[:1]),
        "pass 2: 1 layers, but the first pass has 2",
    ),
    "rows differ": (with_pass(2, router_logits=layers_of(grids()[1][:1])), "pass 2: 1 rows, no multiple of the 2"),
    "dense later": (with_pass(1, router_logits=(None, layers_of(grids()[1])[1])), "pass 1 of layer 0: None; expected"),
    "no logits": (with_pass(1, router_logits=None), "pass 1: expected a tuple of a tensor"),
    "tokens": (with_pass(1, input_ids=TOKENS), r"input_ids of pass 1: expected integers .* 2 in all; found \[2, 7\]"),
    "mask": (with_pass(1, attention_mask=TOKENS[:, :3] * 0), "attention_mask of pass 1: 3 columns"),
    "sequences": (
        {"router_logits": tuple(layers_of(part) for part in grids()), "sequences": TOKENS[:, :5]},
        "sequences: 5 tokens, but the passes processed 7",
    ),
    "prompt alone": (
        {"router_logits": tuple(layers_of(part) for part in grids()), "input_ids": TOKENS[:, :4]},
        "input_ids: 4 tokens, but the passes processed 7; save what each pass processed, or",
    ),
    "other tokens": ({"passes": with_pass(0), "sequences": TOKENS + 1}, "differs from the input_ids of the passes"),
    "both": ({"passes": with_pass(0), "router_logits": layers_of(TOKENS)}, "expected either router_logits or passes"),
    "switch": (SWITCH, r"\[1, 4, 8\]; expected \[batch"),
    "all dense": ({"router_logits": (None, None), "input_ids": TOKENS}, "no layer holds logits"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_understood_is_refused_in_one_line(fault: str, tmp_path: Path) -> None:
    value, message = FAULTS[fault]
    path = save(tmp_path / "l.pt", value)
    with pytest.raises(ForestageError, match=rf"l\.pt: .*{message}") as caught:
        import_recording(path, "hf_router_logits", ImportOptions(model="our/own", top_k=2, select="logits"))
    assert "\n" not in str(caught.value)
