"""``forestage trace import`` and what the other commands make of an imported file."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.study.conftest import Outcome, refused
from traces import RoutingTrace
from traces.expert_load import ExpertLoad

Forestage = Callable[..., Outcome]


@pytest.fixture
def responses(tmp_path: Path) -> Path:
    """vLLM's responses: 4 layers, 16 experts, top-2; two rows name an expert twice."""
    order = np.random.default_rng(0).random((6, 4, 16)).argsort(axis=-1)[..., :2]
    order[0, 1] = order[3, 2] = 7
    path = tmp_path / "responses.json"
    ids = order.tolist()
    usage = {"prompt_tokens": 4, "completion_tokens": 3}
    response = {"choices": [{"routed_experts": ids[4:]}], "prompt_routed_experts": ids[:4], "usage": usage}
    path.write_text(json.dumps({"model": "our/own", **response}))
    return path


@pytest.fixture
def loads(tmp_path: Path) -> Path:
    """An EPLB load: 3 layers, 8 experts."""
    path = tmp_path / "load.npz"
    np.savez(path, weight=np.arange(24).reshape(3, 8))
    return path


def test_import_writes_and_tells(forestage: Forestage, responses: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    run = forestage("trace", "import", responses, "--out", out, "--experts", 16, "--layers", "1-4", "--domain", "law")
    assert run.status == 0
    assert "our/own" in run.out
    lines = run.err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"forestage: warning: {responses}: ") for line in lines)
    trace = RoutingTrace.load(out)
    assert (trace.metadata.layer_map, trace.domains) == ((1, 2, 3, 4), ("law",))


def test_the_user_says_where_it_comes_from(
    forestage: Forestage, responses: Path, loads: Path, small_trace: Path, tmp_path: Path
) -> None:
    said = ("--source", "our lab, run 7", "--licence", "CC-BY-4.0")
    out = tmp_path / "out.safetensors"
    for source, kind, model in (
        (responses, RoutingTrace, ("--experts", 16)),
        (loads, ExpertLoad, ("--model", "our/own")),
        (small_trace, RoutingTrace, ()),
    ):
        assert forestage("trace", "import", source, "--out", out, *model, *said).status == 0
        metadata = kind.load(out).metadata
        assert (metadata.source, metadata.licence) == ("our lab, run 7", "CC-BY-4.0")


def test_the_source_is_never_overwritten(forestage: Forestage, responses: Path, tmp_path: Path) -> None:
    before = responses.read_bytes()
    link = tmp_path / "link.safetensors"
    link.symlink_to(responses)
    for out in (responses, link):
        run = forestage("trace", "import", responses, "--out", out, "--experts", 16)
        assert f"--out {out}: is the source, which would be lost; name another file" in refused(run)
    assert responses.read_bytes() == before


def test_json_is_one_document_with_the_warnings(forestage: Forestage, responses: Path, tmp_path: Path) -> None:
    run = forestage("trace", "import", responses, "--out", tmp_path / "o.safetensors", "--experts", 16, "--json")
    document = json.loads(run.out)
    assert document["format"] == "vllm_response"
    assert document["tokens"] == 6
    assert [line.partition("warning: ")[2] for line in run.err.splitlines()] == document["warnings"]


def test_loads_are_described_and_refused_elsewhere(forestage: Forestage, loads: Path, tmp_path: Path) -> None:
    out, written = tmp_path / "load.safetensors", tmp_path / "written.safetensors"
    run = forestage("trace", "import", loads, "--out", out, "--model", "own", "--json")
    document = json.loads(run.out)
    assert (document["kind"], document["steps"], document["layers"], document["experts"]) == ("expert load", 1, 3, 8)
    assert ExpertLoad.load(out).counts.sum() == 276
    for command in ("info", "stats"):
        shown = forestage("trace", command, out)
        assert shown.status == 0
        assert "expert loads, no routing" in shown.out
        assert "nothing token by token" in " ".join(shown.out.split())
    by_layer = json.loads(forestage("trace", "stats", out, "--json").out)["by_layer"]
    assert [layer["idle_experts"] for layer in by_layer] == [1, 0, 0]
    for command in (
        ("predictor", "evaluate", "--trace", out, "--predictor", "popularity", "--issue", 4),
        ("predictor", "evaluate", "--trace", loads, "--model", "own", "--predictor", "popularity", "--issue", 4),
        ("predictor", "train", "--trace", out, "--out", written),
        ("predictor", "train-next-use", "--trace", out, "--out", written),
        ("cache", "simulate", "--trace", out, "--capacity", 4),
        ("cache", "compare", "--trace", out),
        ("trace", "batch", "--trace", out, "--batch", 4, "--out", written),
        ("trace", "synthesise", "--from", out, "--out", written),
        ("system", "simulate", "--trace", out),
        ("rtl", "replay", "--trace", out),
        ("reference", "check", "--trace", out),
        ("study", "--trace", out, "--out", written),
    ):
        assert ": holds expert loads" in refused(forestage(*command))
    assert not written.exists()
    assert "no trained predictor" in refused(forestage("predictor", "export", out, "--out", written))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ((), "import it with --experts"),
        (("--experts", 0), "--experts 0: give 1 or more"),
        (("--experts", 16, "--layers", "a"), "--layers a"),
        (("--experts", 16, "--layers", "4-1"), "layers"),
        (("--experts", 16, "--layers", "1"), "--layers names 1"),
        (("--experts", 4), "experts 0 to 3"),
        (("--experts", 16, "--gate-weights", "softmax"), "--gate-weights: the format vllm_response has no use for it"),
        (("--experts", 16, "--gate-weights", "x"), "--gate-weights x: choose"),
        (("--phase", "decode"), "--phase: the format vllm_response has no use for it"),
        (("--phase", "decoding"), "--phase decoding: choose"),
        (("--format", "vllm"), "--format vllm: unknown format"),
        (("--format", "npz"), "not an .npz archive"),
        (("--experts", 16, "--top-k", 3), "--top-k 3: the file holds 2"),
    ],
)
def test_options_that_do_not_fit(
    forestage: Forestage, responses: Path, tmp_path: Path, options: tuple[object, ...], named: str
) -> None:
    out = tmp_path / "out.safetensors"
    assert named in refused(forestage("trace", "import", responses, "--out", out, *options))
    assert not out.exists()


def test_the_phase_of_a_format_that_does_not_tell_it(forestage: Forestage, tmp_path: Path) -> None:
    rows = [
        {"type": "route", "req_id": 1, "token_idx": token, "layer": layer, "topk_ids": [(token + layer) % 4]}
        for token in range(9)
        for layer in range(2)
    ]
    path, out = tmp_path / "t.jsonl", tmp_path / "out.safetensors"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ("trace", "import", path, "--out", out, "--model", "own", "--experts", 4, "--json")
    silent = forestage(*command)
    assert json.loads(silent.out)["decode_tokens"] == 0
    assert "--phase decode" in silent.err
    told = forestage(*command, "--phase", "decode")
    assert json.loads(told.out)["decode_tokens"] == 9
    assert "phase" not in told.err


def test_a_trace_in_a_foreign_format_is_warned_of_by_any_command(forestage: Forestage, tmp_path: Path) -> None:
    ids = np.tile(np.array([[0, 1]]), (12, 32, 1)).tolist()
    path = tmp_path / "dummy.json"
    usage = {"prompt_tokens": 12, "completion_tokens": 1}
    response = {"model": "Mixtral-8x7B", "choices": [{}], "prompt_routed_experts": ids, "usage": usage}
    path.write_text(json.dumps(response))
    run = forestage("trace", "info", path)
    assert run.status == 0
    assert "forestage: warning:" in run.err
    assert "was it a dummy run?" in run.err
