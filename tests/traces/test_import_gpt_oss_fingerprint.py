"""The importer of expert-fingerprint JSON, on small files in its layout."""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalog.errors import ForestageError
from tests.traces.fuzzing import choices, damaged, fuzz, import_or_refuse
from traces import DECODE, PREFILL, RoutingTrace
from traces.importers import ImportOptions, import_recording, sniff_format

LAYERS, TEXTS = 3, ["<|start|>", "user", "Why", "?", "<|channel|>", "Because"]
FIRST = 3
"""Position of the first recorded token."""


def ids_of(seed: int, position: int, layer: int) -> list[int]:
    return [(position + 2 * layer + seed) % 8, (position + 2 * layer + seed + 3) % 8]


def sequence(seed: int = 0, **fields: Any) -> dict[str, Any]:
    """A sequence whose tokens 3 and 4 were decoded, in the layout of the published files."""
    return {
        "row_index": 35001 + seed,
        "dataset": "Polyglot",
        "category": f"facts{seed}",
        "finished_successfully": True,
        "full_text": TEXTS,
        "generated_only": TEXTS[4:],
        "router_data": [
            {
                f"token_{position}": {
                    f"layer_{layer}": {
                        "selected_experts": ids_of(seed, position, layer),
                        "selected_probs": [0.75, 0.25],
                    }
                    for layer in range(LAYERS)
                }
            }
            for position in (FIRST, FIRST + 1)
        ],
        **fields,
    }


def load(path: Path, value: Any = None, **options: Any) -> RoutingTrace:
    if value is not None:
        path.write_text(json.dumps(value, indent=2))
    options = {"model": "toy", "experts": 8, **options}
    imported = import_recording(path, None, ImportOptions.parse(options, origin="test"))
    assert imported.format == "gpt_oss_fingerprint"
    assert isinstance(imported.recording, RoutingTrace)
    return imported.recording


def test_tokens_positions_labels_and_identities(tmp_path: Path) -> None:
    trace = load(tmp_path / "a.json", sequence())
    assert choices(trace) == {
        (0, position, layer): tuple(ids_of(0, position, layer)) for position in (3, 4) for layer in range(LAYERS)
    }
    assert trace.phase.tolist() == [DECODE, DECODE]
    assert trace.token_hash is not None
    assert trace.token_hash.tolist() == [zlib.crc32(b"?"), zlib.crc32(b"<|channel|>")]
    assert (trace.domains, trace.datasets) == (("facts0",), ("Polyglot",))
    assert trace.gate_weights is not None
    assert np.all(trace.gate_weights == np.array([0.75, 0.25]))
    assert (trace.metadata.gate_weight_kind, trace.metadata.ranked) == ("normalised", True)


def test_an_array_and_a_folder_hold_several_sequences(tmp_path: Path) -> None:
    both = load(tmp_path / "all.json", [sequence(0), sequence(1)])
    folder = tmp_path / "data" / "facts"
    folder.mkdir(parents=True)
    (folder / "False_True_examples.json").write_text(json.dumps(sequence(1)))
    (folder / "False_False_examples.json").write_text(json.dumps(sequence(0)))
    (folder / "False_False.json").write_text(json.dumps({"sample_count": 7}))
    assert sniff_format(tmp_path / "data") == "gpt_oss_fingerprint"
    apart = load(tmp_path / "data")
    assert apart.domains == both.domains == ("facts0", "facts1")
    assert choices(apart) == choices(both)
    assert both.sequence_offsets.tolist() == [0, 2, 4]


def test_the_shape_tells_the_model(tmp_path: Path) -> None:
    ids = {f"layer_{layer}": {"selected_experts": [3, 1, 30, 31]} for layer in range(24)}
    trace = load(tmp_path / "a.json", sequence(router_data=[{"token_3": ids}]), model=None, experts=None)
    assert (trace.metadata.model, trace.experts) == ("gpt-oss-20b", 32)
    assert trace.gate_weights is None


def test_a_pass_of_several_tokens_is_prefill_and_text_may_be_whole(tmp_path: Path) -> None:
    value = sequence(full_text="as one text")
    value["router_data"] = [{**value["router_data"][0], **value["router_data"][1]}]
    trace = load(tmp_path / "a.json", value)
    assert trace.phase.tolist() == [PREFILL, PREFILL]
    assert trace.token_hash is None


def with_layer(item: int, key: str, selection: Any) -> dict[str, Any]:
    value = sequence()
    value["router_data"][item][f"token_{FIRST + item}"][key] = selection
    return value


CHOICE = {"selected_experts": [1, 2], "selected_probs": [0.5, 0.5]}
FAULTS: dict[str, tuple[Any, str]] = {
    "cut off": (json.dumps(sequence(), indent=2)[:-40], r"cut off"),
    "no routing": ({"full_text": TEXTS, "generated_only": []}, "router_data: Field required"),
    "empty": (sequence(router_data=[]), "router_data: is empty"),
    "token key": (
        sequence(router_data=[{"tok_3": {"layer_0": CHOICE}}]),
        r"router_data\.0\.tok_3: expected token_<numb",
    ),
    "layer key": (with_layer(1, "layer_x", CHOICE), r"router_data\.1\.token_4\.layer_x: expected layer_<number>"),
    "position": (sequence(full_text=TEXTS[:4]), r"router_data\.1\.token_4: full_text has 4 tokens"),
    "experts": (with_layer(1, "layer_0", {}), r"router_data\.1\.token_4\.layer_0\.selected_experts: Field required"),
    "negative": (
        with_layer(0, "layer_0", {"selected_experts": [-1, 2]}),
        r"layer_0\.selected_experts\.0: Input should",
    ),
    "beyond": (
        with_layer(0, "layer_0", {**CHOICE, "selected_experts": [8, 2]}),
        r"item 0: expert ids \[8, 2\]: the mod",
    ),
    "probs": (with_layer(0, "layer_0", {**CHOICE, "selected_probs": [0.5]}), "item 0: 1 weights for 2 expert ids"),
    "layer missing": (
        sequence(router_data=[sequence()["router_data"][0], {"token_4": {"layer_0": CHOICE, "layer_2": CHOICE}}]),
        "router_data item 1: position 4 lacks layer 1",
    ),
    "layer missing in between": (
        sequence(
            full_text=[*TEXTS, "."],
            router_data=[
                {f"token_{position}": {f"layer_{layer}": CHOICE for layer in range(2) if (position, layer) != (4, 1)}}
                for position in (3, 4, 5)
            ],
        ),
        "router_data item 1: position 4 lacks layer 1",
    ),
    "stray layer": (with_layer(0, "layer_9", CHOICE), "router_data item 1: position 4 lacks layer 9"),
    "token twice": (
        sequence(router_data=sequence()["router_data"] + sequence()["router_data"][:1]),
        "router_data item 2: position 3, layer 0: came before, in router_data item 0",
    ),
    "second record": ([sequence(), sequence(1, router_data=7)], "record 2: router_data: Input should be a valid list"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_by_item_and_field(fault: str, tmp_path: Path) -> None:
    value, message = FAULTS[fault]
    path = tmp_path / "a.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    with pytest.raises(ForestageError, match=message) as caught:
        import_recording(path, "gpt_oss_fingerprint", ImportOptions(model="toy", experts=8))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ForestageError, match=r"holds no file named \.\.\._examples\.json"):
        import_recording(tmp_path, "gpt_oss_fingerprint", ImportOptions(model="toy", experts=8))


@fuzz(80)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_read_as_it_stands(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    lean = {"router_data": sequence()["router_data"]}
    content = data.draw(damaged(json.dumps(lean, indent=1)))
    path = tmp_path_factory.getbasetemp() / "fuzz.json"
    path.write_bytes(content)
    trace = import_or_refuse(path, "gpt_oss_fingerprint", model="toy", experts=8)
    if trace is None:
        return
    said = {
        (0, int(token.removeprefix("token_")), int(layer.removeprefix("layer_"))): tuple(choice["selected_experts"])
        for item in json.loads(content)["router_data"]
        for token, layers in item.items()
        for layer, choice in layers.items()
    }
    layers = sorted({layer for _, _, layer in said})
    assert choices(trace) == {
        (0, position, layer): ids for (_, position, layer), ids in said.items() if len(set(ids)) == len(ids)
    }
    assert trace.layers == len(layers)
