"""``--model``, ``--experts``, ``--top-k`` and ``--layers`` in every format, for a model that no catalogue knows."""

import json
from pathlib import Path

import numpy as np
import pytest

from catalog.errors import ForestageError
from traces import RoutingTrace
from traces.expert_load import ExpertLoad
from traces.importers import FORMATS, ImportOptions, import_recording
from traces.importers.formats import own

OPTIONS = {"model", "experts", "top_k", "layers"}
UNKNOWN = ImportOptions(model="me/unheard-of", experts=8, top_k=2, layers=(1, 3, 5))


@pytest.mark.parametrize("name", [name for name, importer in FORMATS.items() if importer not in (own.TRACE, own.LOAD)])
def test_every_foreign_format_takes_them(name: str) -> None:
    assert FORMATS[name].uses >= OPTIONS


def npz(folder: Path) -> Path:
    ids = np.random.default_rng(0).random((8, 3, 8)).argsort(-1)[..., :2].astype(np.uint8)
    np.savez(folder / "r.npz", expert_ids=ids, seq_offsets=np.array([0, 8]))
    (folder / "r.sequences.jsonl").write_text(json.dumps({"dataset": "d", "category": "c", "n_tokens": 8}) + "\n")
    return folder / "r.npz"


def big_moe_on_edge(folder: Path) -> Path:
    lines = ["# route_trace v1", "# model=/m/unheard-of.gguf n_layer=6 n_expert=8 n_expert_used=2"]
    lines += [f"# layer={layer} expert_bytes=10 dense_bytes=20" for layer in (1, 3, 5)]
    lines.append("turn,phase,step,layer,slot,expert,weight,residency,expert_bytes")
    for step in range(4):
        for layer in (1, 3, 5):
            lines += [f"0,1,{step},{layer},{slot},{(step + layer + slot) % 8},0.5,1,0" for slot in (0, 1)]
    (folder / "r.csv").write_text("\n".join(lines) + "\n")
    return folder / "r.csv"


def tensorrt_llm(folder: Path) -> Path:
    from safetensors.numpy import save_file

    (folder / "meta_info.json").write_text(json.dumps({"num_experts": 8, "num_experts_per_token": 2}))
    save_file({f"0_{layer}": np.arange(1, 9) for layer in (1, 3, 5)}, folder / "rank0.safetensors")
    return folder


@pytest.mark.parametrize("make", [npz, big_moe_on_edge, tensorrt_llm])
def test_a_model_that_no_catalogue_knows_is_imported(make: object, tmp_path: Path) -> None:
    recording = import_recording(make(tmp_path), options=UNKNOWN).recording  # type: ignore[operator]
    assert isinstance(recording, (RoutingTrace, ExpertLoad))
    facts = recording.metadata
    assert (facts.model, facts.experts, facts.top_k, facts.layer_map) == ("me/unheard-of", 8, 2, (1, 3, 5))


@pytest.mark.parametrize("make", [npz, big_moe_on_edge, tensorrt_llm])
@pytest.mark.parametrize(
    ("change", "message"),
    [({"top_k": 3}, "--top-k 3: "), ({"layers": (1, 3)}, "--layers"), ({"experts": 9}, "--experts 9: ")],
)
def test_what_contradicts_the_file_is_refused(
    make: object, change: dict[str, object], message: str, tmp_path: Path
) -> None:
    options = UNKNOWN.model_copy(update=change)
    path = make(tmp_path)  # type: ignore[operator]
    if make is npz and "experts" in change:  # the file says no number of experts, only that there are so many at least
        options = UNKNOWN.model_copy(update={"experts": 7})
        message = "expert_ids"
    with pytest.raises(ForestageError, match=message):
        import_recording(path, options=options)


def test_a_known_model_of_other_experts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ForestageError, match="8 experts, but gpt-oss-20b has 32; see --model"):
        import_recording(big_moe_on_edge(tmp_path), options=ImportOptions(model="gpt-oss-20b"))


def test_another_weight_format_of_a_known_model_has_its_layers_and_experts(tmp_path: Path) -> None:
    ids = np.random.default_rng(0).random((8, 26, 64)).argsort(-1)[..., :6].astype(np.uint8)
    np.savez(tmp_path / "r.npz", expert_ids=ids, seq_offsets=np.array([0, 8]))
    (tmp_path / "r.sequences.jsonl").write_text(json.dumps({"dataset": "d", "category": "c", "n_tokens": 8}) + "\n")
    options = ImportOptions(model="someone/DeepSeek-V2-Lite-Chat-GGUF")
    metadata = import_recording(tmp_path / "r.npz", options=options).recording.metadata
    assert (metadata.experts, metadata.layer_map) == (64, tuple(range(1, 27)))
    assert metadata.model == "someone/DeepSeek-V2-Lite-Chat-GGUF"
