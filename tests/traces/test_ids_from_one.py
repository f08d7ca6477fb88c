"""Ids that count from 1: the error of the one that is too large asks for it, whatever the format."""

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from catalog.errors import ForestageError
from tests.traces.trace_samples import make_trace
from traces.importers import ImportOptions, import_recording

TOKENS, LAYERS, TOP_K, EXPERTS = 12, 2, 2, 8
IDS = np.stack([1 + np.random.default_rng(n).permutation(EXPERTS)[:TOP_K] for n in range(TOKENS * LAYERS)])
IDS = IDS.reshape(TOKENS, LAYERS, TOP_K)
assert IDS.max() == EXPERTS
HINT = r"; do the ids count from 1\? Then subtract 1 from each"

ROWS = [(token, layer, IDS[token, layer].tolist()) for token in range(TOKENS) for layer in range(LAYERS)]


def npz(path: Path) -> Path:
    np.savez(path / "r.npz", expert_ids=IDS, seq_offsets=np.array([0, TOKENS]))
    (path / "r.sequences.jsonl").write_text(json.dumps({"dataset": "d", "category": "c", "n_tokens": TOKENS}) + "\n")
    return path / "r.npz"


def vllm_response(path: Path) -> Path:
    usage = {"prompt_tokens": TOKENS - 1, "completion_tokens": 2}
    (path / "r.json").write_text(json.dumps({"choices": [{"routed_experts": IDS.tolist()}], "usage": usage}))
    return path / "r.json"


def vllm_offline(path: Path) -> Path:
    tokens = {"prompt_token_ids": np.arange(TOKENS - 1), "output_token_ids": np.arange(2)}
    np.savez(path / "r.npz", routed_experts=IDS, **tokens)
    return path / "r.npz"


def sglang_response(path: Path) -> Path:
    routed = base64.b64encode(IDS.astype("<i4").tobytes()).decode()
    meta = {"prompt_tokens": TOKENS - 1, "completion_tokens": 2, "routed_experts": routed}
    (path / "r.json").write_text(json.dumps({"text": "x", "meta_info": meta}))
    return path / "r.json"


def sglang_per_token(path: Path) -> Path:
    torch = pytest.importorskip("torch", reason="writes .pt files")
    record = {
        "forward_pass_id": 0,
        "rank": 0,
        "gatherer_key": "primary",
        "input_ids": list(range(TOKENS)),
        "positions": list(range(TOKENS)),
        "extend_seq_lens": [TOKENS],
        "forward_mode": 1,
        "topk_ids_of_layer": torch.from_numpy(IDS.transpose(1, 0, 2).copy()).int(),
        "misc_objects": [],
        "global_physical_count": torch.zeros((LAYERS, EXPERTS), dtype=torch.int32),
    }
    identity = torch.arange(EXPERTS).repeat(LAYERS, 1)
    torch.save({"records": [record], "last_physical_to_logical_map": identity}, path / "r.pt")
    return path / "r.pt"


def megatron(path: Path) -> Path:
    calls = [
        {
            "step": 0,
            "stage": "pre_dispatch",
            "block": "decoder",
            "layer": layer,
            "rank": 0,
            "num_tokens": TOKENS,
            "topk": TOP_K,
            "top_indices": IDS[:, layer].tolist(),
        }
        for layer in range(LAYERS)
    ]
    (path / "router_trace_rank0.jsonl").write_text("".join(f"{json.dumps(call)}\n" for call in calls))
    return path / "router_trace_rank0.jsonl"


def llama_cpp_dump(path: Path) -> Path:
    for layer in range(LAYERS):
        np.save(path / f"ffn_moe_topk-{layer}.npy", IDS[:, layer].astype(np.int32))
    return path


def llama_cpp_csv(path: Path) -> Path:
    rows = [f"{layer},{expert}\n" for layer in range(LAYERS) for expert in IDS[:, layer].reshape(-1)]
    (path / "r.csv").write_text("layer,expert\n" + "".join(rows))
    return path / "r.csv"


def jsonl_routes(path: Path) -> Path:
    rows = [
        {"type": "route", "req_id": "a", "token_idx": token, "layer": layer, "topk_ids": ids}
        for token, layer, ids in ROWS
    ]
    (path / "r.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path / "r.jsonl"


def gpt_oss_fingerprint(path: Path) -> Path:
    chances = [0.5, 0.25]
    data_of = [
        {
            f"token_{token}": {
                f"layer_{layer}": {"selected_experts": IDS[token, layer].tolist(), "selected_probs": chances}
                for layer in range(LAYERS)
            }
        }
        for token in range(TOKENS)
    ]
    (path / "r.json").write_text(json.dumps({"router_data": data_of}))
    return path / "r.json"


def moe_beyond(path: Path) -> Path:
    ordered = [(layer, token) for layer in range(LAYERS) for token in range(TOKENS)]
    rows = [f'{layer},1,t{token},"{IDS[token, layer].tolist()}"\n' for layer, token in ordered]
    (path / "r.csv").write_text("Layer ID,Batch Number,Token,Activated Expert IDs\n" + "".join(rows))
    return path / "r.csv"


def esft(path: Path) -> Path:
    for layer in range(LAYERS):
        ids = "\t".join(map(str, IDS[:, layer].reshape(-1)))
        weights = "\t".join(["0.25"] * IDS[:, layer].size)
        (path / f"expert_weights_{layer}.txt").write_text(f"{ids}\t\t{weights}\n")
    return path


def table(path: Path) -> Path:
    (path / "r.csv").write_text("token,layer,ids\n" + "".join(f'{t},{n},"{ids}"\n' for t, n, ids in ROWS))
    return path / "r.csv"


def loads(path: Path) -> Path:
    counts = [f"{layer},{expert},3\n" for layer in range(LAYERS) for expert in range(1, EXPERTS + 1)]
    (path / "expert_distribution_rank0_timestamp1.csv").write_text("layer_id,expert_id,count\n" + "".join(counts))
    return path / "expert_distribution_rank0_timestamp1.csv"


SHAPE = {"experts": EXPERTS, "layers": tuple(range(LAYERS))}
FORMATS: dict[str, tuple[Callable[[Path], Path], dict[str, object]]] = {
    "npz": (npz, {}),
    "vllm_response": (vllm_response, {}),
    "vllm_offline": (vllm_offline, {}),
    "sglang_response": (sglang_response, {"top_k": TOP_K}),
    "sglang_per_token": (sglang_per_token, {}),
    "megatron": (megatron, {}),
    "llama_cpp_dump": (llama_cpp_dump, {"top_k": TOP_K}),
    "llama_cpp_csv": (llama_cpp_csv, {"top_k": TOP_K}),
    "jsonl_routes": (jsonl_routes, {}),
    "gpt_oss_fingerprint": (gpt_oss_fingerprint, {}),
    "moe_beyond": (moe_beyond, {}),
    "esft": (esft, {"top_k": TOP_K}),
    "table": (table, {"columns": {"token": "token", "layer": "layer", "ids": "ids"}}),
    "sglang_load_csv": (loads, {}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_refusal_asks_whether_they_do(name: str, tmp_path: Path) -> None:
    write, more = FORMATS[name]
    options = ImportOptions.parse({"model": "our/own", **SHAPE, **more}, origin="test")
    with pytest.raises(ForestageError, match=HINT) as caught:
        import_recording(write(tmp_path), name, options)
    assert "\n" not in str(caught.value)


def test_a_larger_id_is_not_asked_about(tmp_path: Path) -> None:
    path = npz(tmp_path)
    np.savez(path, expert_ids=IDS + 1, seq_offsets=np.array([0, TOKENS]))
    with pytest.raises(ForestageError, match=r"experts 0 to 7$"):
        import_recording(path, "npz", ImportOptions(model="our/own", experts=EXPERTS))


def test_ids_that_name_expert_0_too_are_not_asked_about(tmp_path: Path) -> None:
    path = npz(tmp_path)
    ids = IDS.copy()
    ids[5, 1] = [3, 0]
    np.savez(path, expert_ids=ids, seq_offsets=np.array([0, TOKENS]))
    with pytest.raises(ForestageError, match=r"experts 0 to 7$"):
        import_recording(path, "npz", ImportOptions(model="our/own", experts=EXPERTS))


def test_a_trace_made_in_python() -> None:
    trace = make_trace()
    ids = trace.expert_ids.copy()
    ids = np.where(ids == 0, trace.experts, ids)
    with pytest.raises(ForestageError, match=rf"every id must be below metadata\.experts.*{HINT}"):
        replace(trace, expert_ids=ids, content="unchecked")


def test_a_map_of_experts(tmp_path: Path) -> None:
    np.save(tmp_path / "map.npy", np.tile(np.arange(1, EXPERTS + 1), (LAYERS, 1)))
    options = ImportOptions(
        model="our/own",
        experts=EXPERTS,
        columns={"token": "token", "layer": "layer", "ids": "ids"},
        expert_map=tmp_path / "map.npy",
    )
    with pytest.raises(ForestageError, match=rf"map\.npy: layer 0 has no copy of expert 0.*{HINT}"):
        import_recording(table(tmp_path), "table", options)


def test_loads_without_the_first_expert_are_told(tmp_path: Path) -> None:
    """An idle last expert leaves nothing too large."""
    path = loads(tmp_path)
    for first in (1, 0):
        rows = [f"{layer},{expert},900\n" for layer in range(LAYERS) for expert in range(first, EXPERTS)]
        path.write_text("layer_id,expert_id,count\n" + "".join(rows))
        imported = import_recording(path, "sglang_load_csv", ImportOptions(model="our/own", experts=EXPERTS))
        columns = {"layer": "layer_id", "expert": "expert_id", "count": "count"}
        tabled = import_recording(path, "table", ImportOptions(model="our/own", experts=EXPERTS, columns=columns))
        for warnings in (imported.warnings, tabled.warnings):
            told = [line for line in warnings if "expert 0 has no load in any layer; do the ids count from 1?" in line]
            assert len(told) == first


def test_the_columns_of_a_mask(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("layer_id,token_id,expert_1,expert_2\n0,0,1,0\n")
    with pytest.raises(ForestageError, match="name the experts from 0 on"):
        import_recording(tmp_path / "r.csv", "dynande", ImportOptions(model="our/own"))
