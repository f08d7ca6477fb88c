"""Every input met in the field gives what it must: the table of ../shared/field-cases/README.md, by the command.

The right values are those that its generator writes, made again here by its own functions.
"""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.conftest import SHARED
from tests.study.conftest import Outcome, refused
from traces import DECODE, PREFILL, RoutingTrace
from traces.expert_load import ExpertLoad

Forestage = Callable[..., Outcome]
FieldCase = Callable[[str], Path]

QWEN = ("--model", "Qwen/Qwen3-30B-A3B")


@pytest.fixture(scope="module")
def generator(field_case: FieldCase) -> ModuleType:
    """The module that writes the cases."""
    field_case("warm_up.jsonl")  # skips where there is none
    spec = importlib.util.spec_from_file_location("field_cases", SHARED / "field-cases" / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def imported(forestage: Forestage, field_case: FieldCase, tmp_path: Path) -> Callable[..., tuple[RoutingTrace, str]]:
    """Import a case by the command; the trace, and what stderr said."""

    def run(name: str, *arguments: object) -> tuple[RoutingTrace, str]:
        out = tmp_path / "out.safetensors"
        outcome = forestage("trace", "import", field_case(name), "--out", out, *arguments)
        assert outcome.status == 0, outcome.err
        return RoutingTrace.load(out), outcome.err

    return run


@pytest.fixture
def loaded(forestage: Forestage, field_case: FieldCase, tmp_path: Path) -> Callable[..., tuple[ExpertLoad, str]]:
    """As ``imported``, of loads."""

    def run(name: str, *arguments: object) -> tuple[ExpertLoad, str]:
        out = tmp_path / "out.safetensors"
        outcome = forestage("trace", "import", field_case(name), "--out", out, *arguments)
        assert outcome.status == 0, outcome.err
        return ExpertLoad.load(out), outcome.err

    return run


@pytest.fixture
def refusal(forestage: Forestage, field_case: FieldCase, tmp_path: Path) -> Callable[..., str]:
    """Import a case that must be refused; the one line. Nothing is left behind."""

    def run(name: str, *arguments: object) -> str:
        out = tmp_path / "out.safetensors"
        line = refused(forestage("trace", "import", field_case(name), "--out", out, *arguments))
        assert list(tmp_path.iterdir()) == []
        return line

    return run


def served(generator: ModuleType) -> npt.NDArray[np.int64]:
    """The rows that vLLM's cases are cut from."""
    return np.asarray(generator.rows(np.random.default_rng(0), 30), np.int64)


# A


def test_router_logits_without_a_rule_are_refused_and_right_with_rule_and_bias(
    imported: Callable[..., tuple[RoutingTrace, str]],
    refusal: Callable[..., str],
    field_case: FieldCase,
    tmp_path: Path,
) -> None:
    torch = pytest.importorskip("torch", reason="the bias is drawn as the generator draws it")
    assert "--select" in refusal("bias_routed.pt", "--model", "own/model", "--top-k", 2)
    assert "--selection-bias" in refusal("bias_routed.pt", "--model", "own/model", "--top-k", 2, "--select", "sigmoid")
    torch.manual_seed(0)
    for _ in range(4):
        torch.randn(40, 16)
    bias = tmp_path / "bias.npy"
    np.save(bias, np.tile((torch.randn(16) * 0.5).numpy(), (4, 1)))
    trace, _ = imported(
        "bias_routed.pt", "--model", "own/model", "--top-k", 2, "--select", "sigmoid", "--selection-bias", bias
    )
    np.testing.assert_array_equal(np.sort(trace.expert_ids, axis=-1), np.load(field_case("bias_routed.truth.npy")))


def test_llama_cpp_logits_are_chosen_from_by_a_known_rule_alone(
    imported: Callable[..., tuple[RoutingTrace, str]], refusal: Callable[..., str], field_case: FieldCase
) -> None:
    assert "--model" in refusal("llama_cpp_logits")
    assert "--select" in refusal("llama_cpp_logits", "--model", "own/model", "--top-k", 4)
    trace, _ = imported("llama_cpp_logits", "--model", "own/model", "--top-k", 4, "--select", "logits")
    for layer in range(8):
        logits = np.load(field_case("llama_cpp_logits") / f"ffn_moe_logits-{layer}.npy")
        np.testing.assert_array_equal(trace.expert_ids[:, layer], np.argsort(-logits, axis=1)[:, :4])


# B


def test_a_warm_up_is_named_and_left_out_when_asked(imported: Callable[..., tuple[RoutingTrace, str]]) -> None:
    trace, said = imported("warm_up.jsonl", "--model", "own/model", "--experts", 64)
    assert trace.tokens == 300
    assert "constant rows: within rows 0–99 " in said
    assert "--drop-constant" in said
    trace, _ = imported("warm_up.jsonl", "--model", "own/model", "--experts", 64, "--drop-constant", 8)
    assert trace.position.tolist() == list(range(100, 300))


# C


def test_independent_tokens_are_no_locality(
    forestage: Forestage, imported: Callable[..., tuple[RoutingTrace, str]], tmp_path: Path
) -> None:
    imported("independent.npz", "--model", "own/model", "--experts", 64)
    stats = json.loads(forestage("trace", "stats", tmp_path / "out.safetensors", "--json").out)
    assert stats["overall"]["over_popularity"] == pytest.approx(1.0, abs=0.01)
    assert stats["overall"]["over_sequence"] == pytest.approx(1.0, abs=0.01)
    assert stats["overall"]["over_uniform"] == pytest.approx(4.06, abs=0.05)


# D, E


def test_a_selection_says_its_model_itself(imported: Callable[..., tuple[RoutingTrace, str]]) -> None:
    trace, _ = imported("selection.jsonl")
    facts = trace.metadata
    assert (facts.model, facts.experts, facts.top_k) == ("ibm-granite/granite-3.1-1b-a400m-instruct", 32, 8)
    assert (int((trace.phase == PREFILL).sum()), int((trace.phase == DECODE).sum())) == (12, 8)


def test_encoder_and_decoder_are_kept_apart(
    imported: Callable[..., tuple[RoutingTrace, str]], refusal: Callable[..., str]
) -> None:
    assert "--stack" in refusal("selection_encoder_decoder.jsonl")
    for stack, tokens in (("encoder", 6), ("decoder", 4)):
        trace, said = imported("selection_encoder_decoder.jsonl", "--stack", stack)
        assert trace.tokens == tokens
        unrecorded = int((~trace.recorded()).sum())
        assert bool(unrecorded) == (f"{unrecorded} rows" in said)


# I


@pytest.mark.parametrize("name", ["vllm_base.json", "vllm_data_shape.json", "vllm_data_dtype_shape.json"])
def test_vllms_forms_of_one_answer_are_one_trace(
    name: str, imported: Callable[..., tuple[RoutingTrace, str]], generator: ModuleType
) -> None:
    trace, _ = imported(name, *QWEN)
    np.testing.assert_array_equal(trace.expert_ids, served(generator)[:15])
    assert trace.phase.tolist() == [PREFILL] * 12 + [DECODE] * 3


@pytest.mark.parametrize("name", ["vllm_cached_prefix.json", "vllm_prompt_start.json"])
def test_positions_begin_after_a_cached_prefix(
    name: str, imported: Callable[..., tuple[RoutingTrace, str]], generator: ModuleType
) -> None:
    trace, said = imported(name, *QWEN)
    assert trace.position.tolist() == list(range(8, 15))
    np.testing.assert_array_equal(trace.expert_ids, served(generator)[8:15])
    assert "8 cached tokens" in said


def test_a_stream_is_put_together(imported: Callable[..., tuple[RoutingTrace, str]], generator: ModuleType) -> None:
    trace, _ = imported("vllm_stream.txt", *QWEN)
    np.testing.assert_array_equal(trace.expert_ids, served(generator)[:15])
    assert (int((trace.phase == PREFILL).sum()), int((trace.phase == DECODE).sum())) == (12, 3)


def test_offline_outputs_are_a_sequence_each(imported: Callable[..., tuple[RoutingTrace, str]]) -> None:
    trace, _ = imported("vllm_offline", *QWEN)
    assert np.diff(trace.sequence_offsets).tolist() == [15, 16, 17, 18]


def test_sglangs_prefill_alone(imported: Callable[..., tuple[RoutingTrace, str]]) -> None:
    trace, said = imported("sglang_prefill_short.json", *QWEN)
    assert (trace.tokens, bool((trace.phase == PREFILL).all())) == (11, True)
    assert "last row of the prompt is missing" in said
    assert "never processed" not in said
    trace, _ = imported("sglang_prefill_complete.json", *QWEN)
    assert (trace.tokens, bool((trace.phase == PREFILL).all())) == (12, True)


def test_the_cached_tokens_of_a_later_turn_count_once(imported: Callable[..., tuple[RoutingTrace, str]]) -> None:
    trace, said = imported("sglang_turns.jsonl", *QWEN)
    assert (trace.tokens, trace.sequences) == (22, 2)
    assert "15 cached tokens" in said


# J


def test_sglangs_csv_of_ranks_is_added_up(loaded: Callable[..., tuple[ExpertLoad, str]], field_case: FieldCase) -> None:
    load, _ = loaded("sglang_load_csv", "--model", "deepseek-ai/DeepSeek-V3")
    assert load.metadata.layer_map == tuple(range(3, 61))
    total = 0
    for file in field_case("sglang_load_csv").iterdir():
        total += int(np.loadtxt(file, delimiter=",", skiprows=1)[:, 2].sum())
    assert load.counts.sum() == total


def test_popularity_and_activation_matrices_are_loads(
    loaded: Callable[..., tuple[ExpertLoad, str]], field_case: FieldCase
) -> None:
    load, _ = loaded("popularity.json", "--model", "mistralai/Mixtral-8x7B-Instruct-v0.1")
    popularity = json.loads(field_case("popularity.json").read_text())["expert_popularity"]
    np.testing.assert_allclose(load.counts[0], popularity)
    load, said = loaded("activation_matrices.npy", "--model", "deepseek-ai/DeepSeek-V2-Lite")
    np.testing.assert_array_equal(load.counts, np.load(field_case("activation_matrices.npy"))[:15])
    assert "5 " in said


def test_a_map_is_a_map(refusal: Callable[..., str], field_case: FieldCase) -> None:
    from traces.importers.assembly.expert_map import read_expert_map

    assert "--expert-map" in refusal("expert_map.json")
    assert read_expert_map(field_case("expert_map.json")).physical == 132


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("spaced.log", {"layer": "layer_id", "ids": "expert_ids"}),
        ("wide.csv", {"token": "token_id", "layer": "layer_id", "ids": "expert_*"}),
        ("bracketed.csv", {"token": "Token", "layer": "Layer", "ids": "ExpertIDs", "weights": "ExpertWeights"}),
    ],
)
def test_a_table_is_named_by_its_columns(
    name: str,
    columns: dict[str, str],
    imported: Callable[..., tuple[RoutingTrace, str]],
    refusal: Callable[..., str],
    generator: ModuleType,
) -> None:
    assert "--column" in refusal(name)
    options = [part for role, column in columns.items() for part in ("--column", f"{role}={column}")]
    trace, _ = imported(name, *QWEN, *options)
    np.testing.assert_array_equal(trace.expert_ids, generator.rows(np.random.default_rng(5), 30))


def test_no_case_is_forgotten(generator: ModuleType, field_case: FieldCase) -> None:
    """Every file that the generator writes is named in this module."""
    text = Path(__file__).read_text(encoding="utf-8")
    folder: Any = field_case("warm_up.jsonl").parent
    names = {path.name for path in folder.iterdir()} - {"models", "independent.sequences.jsonl"}
    assert {name for name in names if name not in text} == set()
