"""llama.cpp's score tensors: the choice that follows from them, and what they say of the choice that is recorded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from catalog.errors import ForestageError
from traces import DECODE, PREFILL, RoutingTrace
from traces.importers import Imported, ImportOptions, import_recording, sniff_format

EXPERTS, TOP_K = 16, 3
LAYERS = (1, 2)
EVALUATIONS = (4, 1)
Array = npt.NDArray[Any]


def logits(evaluation: int, layer: int) -> npt.NDArray[np.float32]:
    return (
        np.random.default_rng([evaluation, layer]).normal(0, 2, (EVALUATIONS[evaluation], EXPERTS)).astype(np.float32)
    )


def softmax(values: Array) -> Array:
    chances = np.exp(values - values.max(axis=1, keepdims=True))
    return chances / chances.sum(axis=1, keepdims=True)


def sigmoid(values: Array) -> Array:
    return 1 / (1 + np.exp(-values))


def bias(layer: int) -> Array:
    return np.random.default_rng(layer).normal(0, 0.5, EXPERTS).astype(np.float32)


def best(scores: Array) -> list[list[int]]:
    return np.sort(np.argsort(-scores.astype(np.float64), axis=1, kind="stable")[:, :TOP_K], axis=1).tolist()


def masked(scores: Array) -> Array:
    """Outside the two of four groups whose best two sum to most: −∞."""
    groups = np.sort(scores.reshape(-1, 4, 4), axis=2)[:, :, -2:].sum(axis=2)
    kept = groups >= np.sort(groups, axis=1)[:, -2:-1]
    return np.where(np.repeat(kept, 4, axis=1), scores, -np.inf)


Make = Callable[[Array, int], Array]
KINDS: dict[str, Make] = {
    "logits": lambda x, layer: x,
    "logits_biased": lambda x, layer: x + bias(layer),
    "softmax": lambda x, layer: softmax(x),
    "sigmoid": lambda x, layer: sigmoid(x),
    "probs_biased": lambda x, layer: sigmoid(x) + bias(layer),
    "probs_masked": lambda x, layer: masked(sigmoid(x) + bias(layer)),
}


def dump(path: Path, **kinds: str | Make) -> Path:
    """A dump with tensors by kind, each made of the logits as ``KINDS`` or a function says."""
    arrays = {}
    for kind, made in kinds.items():
        make = KINDS[made] if isinstance(made, str) else made
        for evaluation in range(len(EVALUATIONS)):
            for layer in LAYERS:
                array = make(logits(evaluation, layer), layer)
                arrays[f"{evaluation}/ffn_moe_{kind}-{layer}"] = array if array.dtype.kind == "i" else np.float32(array)
    np.savez(path, **arrays)
    return path


def read(path: Path, **options: Any) -> Imported:
    assert sniff_format(path) == "llama_cpp_dump"
    return import_recording(path, options=ImportOptions.parse({"top_k": TOP_K, **options}, origin="test"))


def assert_chosen(imported: Imported, made: str) -> RoutingTrace:
    """The trace chooses the largest of those scores."""
    trace = imported.recording
    assert isinstance(trace, RoutingTrace)
    for column, layer in enumerate(LAYERS):
        expected = [row for e in range(len(EVALUATIONS)) for row in best(KINDS[made](logits(e, layer), layer))]
        assert np.sort(trace.expert_ids[:, column], axis=1).tolist() == expected
    assert trace.phase.tolist() == [PREFILL] * 4 + [DECODE]
    assert trace.metadata.layer_map == LAYERS
    return trace


GLM = {"model": "glm4_moe", "gate_weights": "normalised", "groups": 1, "top_groups": 1}


def test_the_field_case_is_refused_until_the_rule_is_known(field_case: Callable[[str], Path]) -> None:
    path = field_case("llama_cpp_logits")
    with pytest.raises(ForestageError, match="names no model"):
        read(path)
    with pytest.raises(ForestageError, match="how our/own chooses its experts is not known"):
        read(path, model="our/own")
    for options in ({"model": "our/own", "select": "logits"}, {"model": "mixtral"}):
        trace = read(path, **options).recording
        assert isinstance(trace, RoutingTrace)
        assert trace.expert_ids.shape == (25, 8, TOP_K)
        for layer in range(8):
            scores = np.load(path / f"ffn_moe_logits-{layer}.npy")
            assert np.sort(trace.expert_ids[:, layer], axis=1).tolist() == best(scores)


def test_logits_of_a_model_that_chooses_by_them(tmp_path: Path) -> None:
    trace = assert_chosen(read(dump(tmp_path / "d.npz", logits="logits"), model="mixtral"), "logits")
    assert trace.gate_weights is not None
    assert trace.metadata.gate_weight_kind == "normalised"
    chances = softmax(logits(1, 2).astype(np.float64))[0, trace.expert_ids[4, 1]]
    np.testing.assert_allclose(trace.gate_weights[4, 1], chances / chances.sum(), atol=1e-3)


def test_a_folder_of_bare_bytes(tmp_path: Path) -> None:
    for layer in LAYERS:
        (tmp_path / f"ffn_moe_logits-{layer}.bin").write_bytes(logits(0, layer).tobytes())
    trace = read(tmp_path, model="mixtral", experts=EXPERTS).recording
    assert isinstance(trace, RoutingTrace)
    assert np.sort(trace.expert_ids[:, 0], axis=1).tolist() == best(logits(0, 1))
    with pytest.raises(ForestageError, match="64 numbers, no multiple of 15 experts; see --experts"):
        read(tmp_path, model="mixtral", experts=15)


def test_a_router_with_a_bias_of_its_own_does_not_choose_by_ffn_moe_logits(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    with pytest.raises(ForestageError, match="do not have its router's bias yet; write out ffn_moe_logits_biased"):
        read(dump(path, logits="logits"), model="gpt_oss")
    both = dump(path, logits="logits", logits_biased="logits_biased")
    assert_chosen(read(both, model="gpt_oss"), "logits_biased")
    # Of gpt-oss, ffn_moe_probs are the logits again.
    assert_chosen(read(dump(path, logits="logits", probs="logits_biased"), model="gpt_oss"), "logits_biased")
    own = read(dump(path, logits="logits"), model="our/own", select="logits")
    assert any("if its router has a bias of its own, ffn_moe_logits_biased" in line for line in own.warnings)


def test_probabilities_are_scores_already(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    plain = assert_chosen(read(dump(path, probs="softmax"), model="mixtral"), "logits")
    logit = assert_chosen(read(dump(path, logits="logits"), model="mixtral"), "logits")
    assert plain.gate_weights is not None
    np.testing.assert_allclose(plain.gate_weights, logit.gate_weights, atol=1e-3)
    granite = assert_chosen(read(dump(path, probs="softmax"), model="granitemoe"), "logits")
    np.testing.assert_allclose(granite.gate_weights, logit.gate_weights, atol=1e-3)
    with pytest.raises(ForestageError, match="sigmoid scores, but the model chooses by softmax"):
        read(dump(path, probs="sigmoid"), model="mixtral")
    with pytest.raises(ForestageError, match="no probabilities, but the model chooses by its softmax"):
        read(dump(path, probs="logits"), model="mixtral")


def test_a_bias_for_the_choice_comes_from_a_file_or_is_in_the_scores(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    with pytest.raises(ForestageError, match="import it with --selection-bias FILE"):
        read(dump(path, logits="logits"), **GLM)
    np.savez(tmp_path / "bias.npz", **{f"blk.{layer}.exp_probs_b.bias": bias(layer) for layer in (*LAYERS, 3)})
    for kinds in ({"logits": "logits"}, {"probs": "sigmoid"}):
        trace = assert_chosen(read(dump(path, **kinds), **GLM, selection_bias=tmp_path / "bias.npz"), "probs_biased")
        assert trace.gate_weights is not None
    weighed = assert_chosen(read(dump(path, logits="logits", probs_biased="probs_biased"), **GLM), "probs_biased")
    np.testing.assert_allclose(weighed.gate_weights, trace.gate_weights, atol=1e-3)
    alone = read(dump(path, probs_biased="probs_biased"), **{**GLM, "gate_weights": None})
    assert assert_chosen(alone, "probs_biased").gate_weights is None
    assert any("without gate weights" in line for line in alone.warnings)


def test_groups_are_in_the_masked_scores_or_said(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    assert_chosen(read(dump(path, probs_masked="probs_masked"), model="our/own"), "probs_masked")
    both = dump(path, probs_masked="probs_masked", probs_biased="probs_biased", probs="sigmoid")
    trace = assert_chosen(read(both, model="glm4_moe", gate_weights="normalised"), "probs_masked")
    assert trace.gate_weights is not None
    dump(path, probs_biased="probs_biased")
    with pytest.raises(ForestageError, match=r"whether llama.cpp limits our/own to some groups"):
        read(path, model="our/own")
    assert_chosen(read(path, model="our/own", groups=1, top_groups=1), "probs_biased")
    with pytest.raises(ForestageError, match="--select: ffn_moe_probs_biased-<l> decides by itself"):
        read(path, model="our/own", groups=1, top_groups=1, select="sigmoid")
    with pytest.raises(ForestageError, match="fewer than 9 experts are not barred"):
        read(dump(path, probs_masked="probs_masked"), model="our/own", top_k=9)


def test_whether_llama_cpp_limits_the_groups_of_a_known_model_is_said(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    generator = np.random.default_rng(0)
    arrays = {f"ffn_moe_logits-{n}": generator.normal(0, 1, (2, 256)).astype(np.float32) for n in range(3, 61)}
    np.savez(path, **arrays)
    np.save(tmp_path / "bias.npy", np.zeros((58, 256), np.float32))
    v3 = {"model": "DeepSeek-V3", "selection_bias": tmp_path / "bias.npy", "top_k": None}
    with pytest.raises(
        ForestageError, match=r"whether llama.cpp does depends on its version .* --groups 8 --top-groups 4"
    ):
        read(path, **v3)
    free = read(path, **v3, groups=1, top_groups=1).recording
    limited = read(path, **v3, groups=8, top_groups=4).recording
    assert isinstance(free, RoutingTrace)
    assert isinstance(limited, RoutingTrace)
    assert all(len(set(row.tolist())) <= 4 for row in (limited.expert_ids // 32).reshape(-1, 8))
    np.testing.assert_array_equal(
        np.sort(free.expert_ids[:, 0], axis=1), np.sort(np.argsort(-arrays["ffn_moe_logits-3"], axis=1)[:, :8], axis=1)
    )
    with pytest.raises(ForestageError, match=r"has 8 and 4, or llama.cpp ignores them \(1 and 1\)"):
        read(path, **v3, groups=4, top_groups=2)
    with pytest.raises(ForestageError, match=r"compares groups by their best expert, llama.cpp by their best two"):
        read(dump(path, logits="logits"), model="deepseek_v2", groups=4, top_groups=2)


def topk(values: Array, layer: int) -> Array:
    return np.argsort(-values, axis=1, kind="stable").astype(np.int32)


def test_a_recorded_choice_wins_and_must_agree_with_its_scores(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    good = dump(path, topk=topk, logits="logits")
    assert_chosen(read(good, model="mixtral", experts=EXPERTS), "logits")
    with pytest.raises(ForestageError, match=r"--select: ffn_moe_topk is the choice itself; leave it out"):
        read(good, model="our/own", experts=EXPERTS, select="logits")
    shifted = dump(path, topk=lambda x, layer: (topk(x, layer) + 1) % EXPERTS, logits="logits")
    with pytest.raises(
        ForestageError, match=r"0/ffn_moe_topk-1: token 0: .* but of .*0/ffn_moe_logits-1 mixtral chooses"
    ):
        read(shifted, model="mixtral", experts=EXPERTS)
    # Of a model that is not known nothing follows from the logits, so that nothing contradicts.
    assert isinstance(read(shifted, model="our/own", experts=EXPERTS).recording, RoutingTrace)


def test_weights_of_gpt_oss_are_the_softmax_of_what_llama_cpp_calls_so(tmp_path: Path) -> None:
    def chosen_logits(values: Array, layer: int) -> Array:
        return np.take_along_axis(values, topk(values, layer)[:, :TOP_K], axis=1) - 5  # some negative

    path = dump(tmp_path / "d.npz", topk=topk, weights=chosen_logits)
    trace = assert_chosen(read(path, model="gpt_oss", experts=EXPERTS), "logits")
    assert trace.gate_weights is not None
    np.testing.assert_allclose(trace.gate_weights.astype(np.float32).sum(axis=2), 1, atol=2e-3)
    with pytest.raises(ForestageError, match="must be finite and not negative"):
        read(path, model="our/own", experts=EXPERTS)


def test_a_shape_alone_does_not_say_what_weights_are(tmp_path: Path) -> None:
    ids = np.argsort(np.random.default_rng(0).normal(size=(3, 32)), axis=1).astype(np.int32)
    tensors = {f"ffn_moe_topk-{n}": ids for n in range(24)}
    np.savez(tmp_path / "d.npz", **tensors, **{f"ffn_moe_weights-{n}": np.full((3, 4), 0.25) for n in range(24)})
    with pytest.raises(ForestageError, match=r"of gpt-oss-20b, whose shape this is, ffn_moe_weights are logits"):
        read(tmp_path / "d.npz", top_k=4, experts=32)
    assert isinstance(read(tmp_path / "d.npz", top_k=4, model="gpt-oss-20b").recording, RoutingTrace)


FAULTS: dict[str, tuple[dict[str, str | Make], dict[str, Any], str]] = {
    "nan": (
        {"logits": lambda x, layer: np.where(x == x[0, 3], np.nan, x)},
        {},
        "token 0, expert 3: nan; expected a finite",
    ),
    "barred": ({"logits": lambda x, layer: masked(x)}, {}, "-inf; expected a finite number"),
    "integers": ({"logits": lambda x, layer: x.astype(np.int32)}, {}, r"int32 .*; expected floats \[tokens, 16\]"),
    "too many": ({"logits": "logits"}, {"top_k": 17}, "top-k 17 of 16 experts"),
    "experts": ({"logits": "logits"}, {"experts": 8}, "--experts 8: the file says 16"),
    "weights alone": ({"weights": "softmax"}, {}, "holds no ffn_moe_topk"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_in_one_line(fault: str, tmp_path: Path) -> None:
    kinds, options, message = FAULTS[fault]
    path = dump(tmp_path / "d.npz", **kinds)
    with pytest.raises(ForestageError, match=message) as caught:
        read(path, **{"model": "mixtral", **options})
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
