"""Router logits of models that choose by more than logits, and what the user must say of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import save_file

from catalog.errors import ForestageError
from traces import RoutingTrace
from traces.importers import Imported, ImportOptions, import_recording

LAYERS, ROWS, EXPERTS = 3, 30, 16
Floats = npt.NDArray[np.float32]

GENERATOR = np.random.default_rng(7)
LOGITS: Floats = GENERATOR.normal(0, 1, (LAYERS, ROWS, EXPERTS)).astype(np.float32)
BIAS: Floats = GENERATOR.normal(0, 0.4, (LAYERS, EXPERTS)).astype(np.float32)
OWN = {"model": "our/own", "top_k": 2}


@pytest.fixture
def logits(tmp_path: Path) -> Path:
    path = tmp_path / "logits.safetensors"
    tokens = np.arange(ROWS).reshape(2, -1)
    save_file({**{f"router_logits.{n}": part for n, part in enumerate(LOGITS)}, "input_ids": tokens}, path)
    return path


@pytest.fixture
def bias(tmp_path: Path) -> Path:
    path = tmp_path / "bias.npy"
    np.save(path, BIAS)
    return path


def read(path: Path, **options: Any) -> Imported:
    return import_recording(path, options=ImportOptions.parse(options, origin="test"))


def trace_in(path: Path, **options: Any) -> RoutingTrace:
    recording = read(path, **options).recording
    assert isinstance(recording, RoutingTrace)
    return recording


def largest(scores: npt.NDArray[Any], top_k: int) -> list[list[int]]:
    """Ids of the largest scores, ascending, found by a sort in float64."""
    return [
        sorted(sorted(range(len(row)), key=lambda n, row=row: -row[n])[:top_k]) for row in scores.astype(np.float64)
    ]


def sigmoid(logits: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def assert_chosen(trace: RoutingTrace, scores: npt.NDArray[Any], top_k: int) -> None:
    for layer in range(trace.layers):
        assert np.sort(trace.expert_ids[:, layer], axis=1).tolist() == largest(scores[layer], top_k)


def test_a_field_case_without_its_bias_is_refused_and_right_with_it(
    field_case: Callable[[str], Path], tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch", reason="reads .pt files")
    path = field_case("bias_routed.pt")
    torch.manual_seed(0)
    for _ in range(4):
        torch.randn(40, 16)
    bias = torch.randn(16) * 0.5  # as make.py draws them
    for missing in ({}, {"select": "sigmoid"}):
        with pytest.raises(ForestageError, match="--selection-bias"):
            read(path, **OWN, **missing)
    torch.save(bias.repeat(4, 1), tmp_path / "bias.pt")
    trace = trace_in(path, **OWN, select="sigmoid", selection_bias=tmp_path / "bias.pt")
    truth = np.load(path.with_name("bias_routed.truth.npy"))
    np.testing.assert_array_equal(np.sort(trace.expert_ids, axis=-1), truth)


def test_a_model_that_is_not_known_is_refused_with_what_is_missing(logits: Path, bias: Path) -> None:
    with pytest.raises(ForestageError, match="names no model, and how experts are chosen depends on it"):
        read(logits, top_k=2)
    with pytest.raises(ForestageError, match=r"how our/own chooses .* --select logits, softmax or sigmoid .*, --selec"):
        read(logits, **OWN)
    with pytest.raises(ForestageError, match=r"--selection-bias FILE .* or with --selection-bias none if our/own has"):
        read(logits, **OWN, select="sigmoid")
    with pytest.raises(ForestageError, match="--top-groups: missing"):
        read(logits, **OWN, select="sigmoid", selection_bias=bias, groups=4)
    with pytest.raises(ForestageError, match="compared by their best expert in some models"):
        read(logits, **OWN, select="softmax", groups=4, top_groups=2)


def test_a_stated_rule_is_followed(logits: Path, bias: Path) -> None:
    assert_chosen(trace_in(logits, **OWN, select="logits"), LOGITS, 2)
    assert_chosen(trace_in(logits, **OWN, select="sigmoid", selection_bias="none"), LOGITS, 2)
    biased = sigmoid(LOGITS) + BIAS[:, None]
    trace = trace_in(logits, **OWN, select="sigmoid", selection_bias=bias, gate_weights="normalised")
    assert_chosen(trace, biased, 2)
    assert trace.gate_weights is not None
    assert trace.metadata.gate_weight_kind == "normalised"
    weights = np.take_along_axis(sigmoid(LOGITS[1]), trace.expert_ids[:, 1].astype(int), axis=1)
    np.testing.assert_allclose(trace.gate_weights[:, 1], weights / weights.sum(axis=1, keepdims=True), atol=2e-3)
    assert (np.diff(trace.gate_weights, axis=-1) <= 0).all()  # heaviest first
    chances = np.exp(LOGITS.astype(np.float64))
    chances /= chances.sum(axis=-1, keepdims=True)
    assert_chosen(trace_in(logits, **OWN, select="softmax", selection_bias=bias), chances + BIAS[:, None], 2)
    assert_chosen(trace_in(logits, **OWN, select="logits", selection_bias=bias), LOGITS + BIAS[:, None], 2)


def test_groups_are_compared_by_their_best_two(logits: Path, bias: Path) -> None:
    trace = trace_in(logits, **OWN, select="sigmoid", selection_bias=bias, groups=4, top_groups=1)
    scores = sigmoid(LOGITS) + BIAS[:, None]
    for layer in range(LAYERS):
        groups = np.sort(scores[layer].reshape(ROWS, 4, 4), axis=2)[:, :, -2:].sum(axis=2).argmax(axis=1)
        assert (trace.expert_ids[:, layer] // 4 == groups[:, None]).all()


def test_weights_are_left_out_where_it_is_not_known_what_they_are(logits: Path, bias: Path) -> None:
    imported = read(logits, **OWN, select="sigmoid", selection_bias=bias)
    assert isinstance(imported.recording, RoutingTrace)
    assert imported.recording.gate_weights is None
    assert any("without gate weights" in line and "--gate-weights says" in line for line in imported.warnings)


GLM = {"model": "glm4_moe", "top_k": 2, "groups": 1, "top_groups": 1, "gate_weights": "normalised"}


def test_a_known_family_needs_its_bias_and_what_its_configuration_says(logits: Path, bias: Path) -> None:
    with pytest.raises(ForestageError, match=r"selection-bias FILE: model\.layers\.N\.mlp\.gate\.e_score_correction"):
        read(logits, **GLM)
    with pytest.raises(ForestageError, match=r"--groups N --top-groups M: n_group and topk_group of its config\.json"):
        read(logits, model="glm4_moe", top_k=2, selection_bias=bias)
    assert_chosen(trace_in(logits, **GLM, selection_bias=bias), sigmoid(LOGITS) + BIAS[:, None], 2)
    imported = read(logits, **{**GLM, "gate_weights": None}, selection_bias=bias)
    assert any("normalised or sigmoid; norm_topk_prob" in line for line in imported.warnings)


CONTRADICTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "score": ({**GLM, "select": "logits"}, "--select logits: glm4_moe chooses by sigmoid"),
    "no bias": ({**GLM, "selection_bias": "none"}, "--selection-bias none: glm4_moe has one"),
    "weights": (
        {**GLM, "gate_weights": "softmax", "selection_bias": "b"},
        "--gate-weights softmax: the weights of glm4_moe are normalised or",
    ),
    "a bias": ({"model": "mixtral", "top_k": 2, "selection_bias": "b"}, "--selection-bias: mixtral has none"),
    "sigmoid": ({"model": "mixtral", "top_k": 2, "select": "sigmoid"}, "--select sigmoid: mixtral chooses by softmax"),
    "raw": ({"model": "mixtral", "top_k": 2, "gate_weights": "softmax"}, "weights of mixtral are normalised"),
    "groups": (
        {"model": "mixtral", "top_k": 2, "groups": 4, "top_groups": 2},
        "--groups 4 --top-groups 2: mixtral has 1 and 1",
    ),
    "more groups": ({**GLM, "groups": 2, "top_groups": 4}, "--top-groups 4: exceeds --groups 2"),
    "own": (
        {**OWN, "select": "sigmoid", "selection_bias": "none", "gate_weights": "softmax"},
        "scores are of --select",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_an_option_that_contradicts_is_refused(name: str, logits: Path) -> None:
    options, message = CONTRADICTIONS[name]
    with pytest.raises(ForestageError, match=message) as caught:
        read(logits, **options)
    assert "\n" not in str(caught.value)


def test_an_option_that_says_what_is_known_is_welcome(logits: Path) -> None:
    for select in ("logits", "softmax"):
        assert_chosen(trace_in(logits, model="mixtral", top_k=2, select=select), LOGITS, 2)
    trace_in(logits, model="mixtral", top_k=2, gate_weights="normalised", selection_bias="none", groups=1, top_groups=1)


def test_what_does_not_follow_from_logits_is_refused(logits: Path) -> None:
    with pytest.raises(ForestageError, match="experts have a capacity"):
        read(logits, model="switch_transformers", top_k=1)
    with pytest.raises(ForestageError, match="16 experts do not stand in 3 groups"):
        read(logits, **{**GLM, "groups": 3, "top_groups": 1}, selection_bias="x")


# Numbers that are no logits any more


def with_values(folder: Path, values: npt.NDArray[Any]) -> Path:
    path = folder / "scores.safetensors"
    save_file({f"router_logits.{n}": part for n, part in enumerate(values.astype(np.float32))}, path)
    return path


def test_sigmoid_scores_are_no_logits(tmp_path: Path, bias: Path) -> None:
    path = with_values(tmp_path, sigmoid(LOGITS))
    for options in (GLM | {"selection_bias": bias}, OWN | {"select": "logits"}, {"model": "mixtral", "top_k": 2}):
        with pytest.raises(
            ForestageError, match="lies between 0 and 1, as sigmoid scores do; save the router's logits"
        ):
            read(path, **options)


def test_probabilities_serve_a_rule_of_probabilities_alone(tmp_path: Path, bias: Path) -> None:
    chances = np.exp(LOGITS.astype(np.float64))
    chances /= chances.sum(axis=-1, keepdims=True)
    path = with_values(tmp_path, chances)
    assert_chosen(trace_in(path, model="mixtral", top_k=2), LOGITS, 2)
    assert_chosen(trace_in(path, model="gpt_oss", top_k=2), LOGITS, 2)
    gemma = read(path, model="gemma4", top_k=2)
    assert isinstance(gemma.recording, RoutingTrace)
    assert_chosen(gemma.recording, LOGITS, 2)
    assert gemma.recording.gate_weights is None
    assert any("gemma4 multiplies them by a parameter" in line for line in gemma.warnings)
    ernie = trace_in(path, model="ernie4_5_moe", top_k=2, selection_bias=bias)
    assert_chosen(ernie, chances + BIAS[:, None], 2)
    for options in (GLM | {"selection_bias": bias}, {"model": "llama4", "top_k": 1}, {"model": "phimoe", "top_k": 2}):
        with pytest.raises(ForestageError, match="every row sums to 1, as probabilities do"):
            read(path, **options)


def test_weights_of_the_chosen_alone_are_no_probabilities(tmp_path: Path) -> None:
    chosen = np.where(np.sort(LOGITS, axis=-1)[..., -2:-1] <= LOGITS, np.exp(LOGITS), 0)
    path = with_values(tmp_path, chosen / chosen.sum(axis=-1, keepdims=True))
    assert_chosen(trace_in(path, model="mixtral", top_k=2), LOGITS, 2)
    with pytest.raises(ForestageError, match="only the chosen experts are above 0"):
        read(path, model="jamba", top_k=2)


# The bias's file


def named(prefix: str, end: str, layers: range = range(3)) -> dict[str, Floats]:
    return {f"{prefix}{layer}{end}": BIAS[layer - layers.start] for layer in layers}


GATE = ".mlp.gate.e_score_correction_bias"


def test_a_bias_comes_in_any_file_of_arrays(logits: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="writes .pt files")
    np.savez(tmp_path / "one.npz", BIAS)
    np.savez(tmp_path / "named.npz", **named("model.layers.", GATE))
    (tmp_path / "list.json").write_text(str(BIAS.tolist()))
    save_file(named("model.layers.", GATE, range(1, 4)), tmp_path / "from_one.safetensors")
    torch.save({k: torch.from_numpy(v) for k, v in named("blk.", ".exp_probs_b.bias").items()}, tmp_path / "gguf.pt")
    one_row = {k: v[None] for k, v in named("model.layers.", ".mlp.moe_statics.e_score_correction_bias").items()}
    save_file(one_row, tmp_path / "ernie.safetensors")
    for name in ("one.npz", "named.npz", "list.json", "from_one.safetensors", "gguf.pt", "ernie.safetensors"):
        trace = trace_in(logits, **GLM, selection_bias=tmp_path / name)
        assert_chosen(trace, sigmoid(LOGITS) + BIAS[:, None], 2)


def test_a_checkpoint_will_do_and_its_other_tensors_are_not_read(logits: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="writes bfloat16")
    from safetensors.torch import save_file as save_torch

    folder = tmp_path / "checkpoint"
    folder.mkdir()
    tensors = {k: torch.from_numpy(v) for k, v in named("model.layers.", GATE, range(1, 4)).items()}
    tensors["model.layers.4" + GATE] = torch.full((EXPERTS,), 9.0)  # of a layer that predicts further tokens
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(4, 4, dtype=torch.bfloat16)
    first = dict(list(tensors.items())[:2])
    save_torch(first, folder / "model-00001-of-00002.safetensors")
    save_torch({k: v for k, v in tensors.items() if k not in first}, folder / "model-00002-of-00002.safetensors")
    trace = trace_in(logits, **GLM, layers=(1, 2, 3), selection_bias=folder)
    assert_chosen(trace, sigmoid(LOGITS) + BIAS[:, None], 2)
    with pytest.raises(
        ForestageError, match=r"the biases of 4 layers \(layers 1 to 4\), the recording has 3 layers; say"
    ):
        read(logits, **GLM, selection_bias=folder)
    with pytest.raises(ForestageError, match="lacks the bias of layer 0; has layers 1 to 4"):
        read(logits, **GLM, layers=(0, 1, 2), selection_bias=folder)
    with pytest.raises(ForestageError, match="has a router's bias"):
        read(logits, **GLM, selection_bias=tmp_path)


BAD_BIASES: dict[str, tuple[Any, str]] = {
    "shape": (BIAS[:2], r"\[2, 16\]; expected \[3, 16\], a row a recorded layer"),
    "transposed": (BIAS.T, r"\[16, 3\]; expected \[3, 16\]"),
    "one row": (BIAS[0], r"\[16\], one row for 3 layers; every layer has a bias of its own"),
    "nan": (np.where(np.arange(EXPERTS) == 3, np.nan, BIAS), r"\[0, 3\]: not finite"),
    "text": (np.full((3, 16), "x"), "expected numbers"),
}


@pytest.mark.parametrize("name", BAD_BIASES)
def test_a_faulty_bias_is_refused_in_one_line(name: str, logits: Path, tmp_path: Path) -> None:
    array, message = BAD_BIASES[name]
    np.save(tmp_path / "bad.npy", array)
    with pytest.raises(ForestageError, match=rf"bad\.npy.*{message}") as caught:
        read(logits, **GLM, selection_bias=tmp_path / "bad.npy")
    assert "\n" not in str(caught.value)


def test_one_row_may_stand_for_all_layers_of_ones_own_model_and_is_told(logits: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "row.npy", BIAS[0])
    imported = read(logits, **OWN, select="sigmoid", selection_bias=tmp_path / "row.npy")
    assert isinstance(imported.recording, RoutingTrace)
    assert_chosen(imported.recording, sigmoid(LOGITS) + BIAS[0], 2)
    assert any("one row, taken as the bias of all 3 layers" in line for line in imported.warnings)


def test_arrays_without_a_layers_name_are_refused(logits: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", a=BIAS, b=BIAS)
    save_file({"a": BIAS, "b": BIAS}, tmp_path / "two.safetensors")
    for name in ("two.npz", "two.safetensors"):
        with pytest.raises(ForestageError, match="holds 2 arrays, and none is named like a router's bias"):
            read(logits, **GLM, selection_bias=tmp_path / name)
    np.savez(tmp_path / "twice.npz", **named("model.layers.", GATE), **named("layers.", GATE))
    with pytest.raises(ForestageError, match="layer 0 also has model"):
        read(logits, **GLM, selection_bias=tmp_path / "twice.npz")
