"""``forestage trace import`` of router logits whose rule the user says."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.study.conftest import Outcome, refused
from traces import RoutingTrace

Run = Callable[..., Outcome]


def test_a_rule_is_said_by_options(tmp_path: Path, forestage: Run) -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(2, 12, 16)).astype(np.float32)
    bias = generator.normal(size=(2, 16)).astype(np.float32)
    source, out = tmp_path / "logits.safetensors", tmp_path / "trace.safetensors"
    save_file({"router_logits.0": logits[0], "router_logits.1": logits[1], "input_ids": np.arange(12)[None]}, source)
    np.save(tmp_path / "bias.npy", bias)
    command = ("trace", "import", source, "--out", out, "--model", "our/own", "--top-k", 2, "--phase", "decode")
    assert "--select logits, softmax or sigmoid" in refused(forestage(*command))
    said = ("--select", "sigmoid", "--groups", 4, "--top-groups", 2, "--gate-weights", "sigmoid")
    assert "--selection-bias FILE" in refused(forestage(*command, *said))
    assert not out.exists()
    outcome = forestage(*command, *said, "--selection-bias", tmp_path / "bias.npy", "--json")
    assert outcome.status == 0, outcome.err
    document = json.loads(outcome.out)
    assert (document["format"], document["warnings"]) == ("hf_router_logits", [])
    trace = RoutingTrace.load(out)
    for layer in range(2):
        scores = 1 / (1 + np.exp(-logits[layer].astype(np.float64))) + bias[layer]
        groups = np.sort(scores.reshape(12, 4, 4), axis=2)[:, :, 2:].sum(axis=2)
        allowed = np.repeat(groups >= np.sort(groups, axis=1)[:, 2:3], 4, axis=1)
        best = np.argsort(-np.where(allowed, scores, -np.inf), axis=1)[:, :2]
        np.testing.assert_array_equal(np.sort(trace.expert_ids[:, layer], axis=1), np.sort(best, axis=1))
