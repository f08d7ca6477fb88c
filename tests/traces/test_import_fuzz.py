"""Damaged recordings are refused in one line, or what they now say is imported; nothing in between.

Each test decodes what was changed by itself (the standard library's JSON, safetensors' own reader) and compares. What
has no checksums cannot be told from another recording: a changed digit is another id.
"""

import base64
import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from catalog.errors import ForestageError
from tests.traces.fuzzing import changed, fuzz
from tests.traces.recorded_ids import random_ids
from traces import RoutingTrace
from traces.expert_load import ExpertLoad
from traces.importers import Imported, ImportOptions, import_recording
from traces.importers.assembly.json_records import read_records
from traces.importers.report import Report

LAYERS, TOP_K, EXPERTS = 2, 2, 6
OPTIONS = ImportOptions(model="our/own", experts=EXPERTS)
FUZZ = fuzz()

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 9),
    st.sampled_from([2**31, 2**63, -(2**63), 10**30, 65535, 65536, 1.0, 2.5, float("inf")]),
    st.text(max_size=4),
    st.lists(st.integers(-2, 9), max_size=3),
    st.just({}),
    st.just([[[1, 2], [2, 1]]]),
)


def attempt(path: Path, format: str, options: ImportOptions = OPTIONS) -> Imported | None:
    """The import, or ``None`` where it is refused in one line that names the source."""
    try:
        return import_recording(path, format, options)
    except ForestageError as error:
        refusal = str(error)
    assert "\n" not in refusal
    assert path.name in refusal or "catalogue" in refusal
    return None


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to everything in a JSON value."""
    yield at
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*at, key))


def damaged(draw: Callable[..., Any], data: bytes) -> bytes:
    """``data`` cut off, or with a few bytes changed, taken out or put in."""
    if draw(st.booleans()):
        return data[: draw(st.integers(0, len(data)))]
    made = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        where = draw(st.integers(0, max(len(made) - 1, 0)))
        made[where : where + draw(st.integers(0, 2))] = draw(
            st.binary(max_size=2) | st.sampled_from([b"-1", b"9", b","])
        )
    return bytes(made)


def rows_of(trace: RoutingTrace) -> list[list[list[int] | None]]:
    """Ids token by token and layer by layer; ``None`` where not recorded."""
    recorded = trace.recorded()
    return [
        [trace.expert_ids[token, layer].tolist() if recorded[token, layer] else None for layer in range(trace.layers)]
        for token in range(trace.tokens)
    ]


def assert_tokens(trace: RoutingTrace, written: list[list[list[int]]]) -> None:
    """The trace holds the tokens ``written``, in order; what it leaves out was no choice of distinct experts."""
    kept = trace.metadata.layer_map
    assert trace.tokens == len(written)
    for mine, theirs in zip(rows_of(trace), written, strict=True):
        for row, layer in zip(mine, kept, strict=True):
            if row is None:
                assert len(set(theirs[layer])) < len(theirs[layer]) or set(theirs[layer]) == {-1}
            else:
                assert row == theirs[layer]
        for layer in set(range(len(theirs))) - set(kept):
            assert set(theirs[layer]) <= {0, -1}


# vLLM


def vllm_response() -> dict[str, Any]:
    ids = random_ids(6, LAYERS, TOP_K, EXPERTS).tolist()
    return {
        "model": "our/own",
        "choices": [{"index": 0, "routed_experts": ids[3:5]}, {"index": 1, "routed_experts": ids[5:]}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 5},
        "prompt_routed_experts": ids[:3],
    }


def vllm_tokens(text: str) -> list[list[list[int]]]:
    """What responses in lines say, by the standard library."""
    tokens: list[list[list[int]]] = []
    decoder, start = json.JSONDecoder(), 0
    while text[start:].strip(" \t\r\n"):
        start += len(text[start:]) - len(text[start:].lstrip(" \t\r\n"))
        response, start = decoder.raw_decode(text, start)
        tokens += response.get("prompt_routed_experts") or []
        for choice in response["choices"]:
            generated = list(choice.get("routed_experts") or [])
            if generated and not np.any(generated[-1]):
                generated.pop()
            tokens += generated
    return tokens


def check_vllm(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    imported = attempt(path, "vllm_response")
    if imported is not None:
        assert isinstance(imported.recording, RoutingTrace)
        assert_tokens(imported.recording, vllm_tokens(text))


@FUZZ
@given(st.data())
def test_vllm_fields(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    response = vllm_response()
    at = data.draw(st.sampled_from(list(places(response))))
    check_vllm(tmp_path_factory.getbasetemp() / "fuzz.json", json.dumps(changed(response, at, data.draw(VALUES))))


@FUZZ
@given(st.data())
def test_vllm_bytes(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    made = damaged(data.draw, "\n".join(json.dumps(vllm_response()) for _ in range(2)).encode())
    with contextlib.suppress(UnicodeDecodeError):
        check_vllm(tmp_path_factory.getbasetemp() / "fuzz.json", made.decode())


# SGLang's responses


def sglang_response() -> dict[str, Any]:
    values = base64.b64encode(random_ids(5, LAYERS, TOP_K, EXPERTS).astype("<i4").tobytes()).decode()
    return {
        "model": "our/own",
        "choices": [{"index": 0, "sgl_ext": {"routed_experts": values}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 3},
    }


@FUZZ
@given(st.data())
def test_sglang_response(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    response = sglang_response()
    path = tmp_path_factory.getbasetemp() / "fuzz.json"
    if data.draw(st.booleans()):
        at = data.draw(st.sampled_from(list(places(response))))
        path.write_text(json.dumps(changed(response, at, data.draw(VALUES))), encoding="utf-8")
    else:
        path.write_bytes(damaged(data.draw, json.dumps(response).encode()))
    options = ImportOptions(model="our/own", experts=EXPERTS, top_k=TOP_K, layers=(0, 1))
    imported = attempt(path, "sglang_response", options)
    if imported is None:
        return
    assert isinstance(imported.recording, RoutingTrace)
    said = json.loads(path.read_text(encoding="utf-8"))
    ids = [
        np.frombuffer(base64.b64decode(extension["routed_experts"]), "<i4").reshape(-1, LAYERS, TOP_K).tolist()
        for choice in said["choices"]
        # Later versions write the second name, which a damaged first one may be.
        for extension in [choice.get("sgl_ext") or choice.get("sglext")]
    ]
    assert_tokens(imported.recording, [token for part in ids for token in part])
    total = said["usage"]["prompt_tokens"] + said["usage"]["completion_tokens"]
    assert imported.recording.position[-1] == total - 2


# SGLang's recorder


def forward_passes() -> list[dict[str, Any]]:
    """Two requests of 3 and 2 tokens, two steps of both."""
    ids = random_ids(9, LAYERS, TOP_K, EXPERTS)
    padded = np.full((9, LAYERS, 8), -1)
    padded[..., :TOP_K] = ids
    made = []
    plan = [(1, [0, 1, 2, 0, 1], [3, 2], slice(0, 5)), (2, [3, 2], None, slice(5, 7)), (2, [4, 3], None, slice(7, 9))]
    for number, (mode, positions, lengths, rows) in enumerate(plan):
        made.append(
            {
                "forward_pass_id": number,
                "rank": 0,
                "gatherer_key": "primary",
                "input_ids": list(range(rows.start, rows.stop)),
                "positions": positions,
                "extend_seq_lens": lengths,
                "forward_mode": mode,
                "topk_ids_of_layer": padded[rows].transpose(1, 0, 2).tolist(),
            }
        )
    return made


@FUZZ
@given(st.data())
def test_sglang_per_token_fields(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    torch = pytest.importorskip("torch", reason="writes .pt files")
    at = data.draw(st.sampled_from(list(places(forward_passes()))))
    records = changed(forward_passes(), at, data.draw(VALUES))
    for record in records if isinstance(records, list) else []:
        if isinstance(record, dict) and "topk_ids_of_layer" in record:
            with contextlib.suppress(ValueError, TypeError, OverflowError, RuntimeError):
                record["topk_ids_of_layer"] = torch.tensor(record["topk_ids_of_layer"])
    path = tmp_path_factory.getbasetemp() / "fuzz_0.pt"
    torch.save({"records": records, "last_physical_to_logical_map": torch.arange(EXPERTS).repeat(LAYERS, 1)}, path)
    imported = attempt(path, "sglang_per_token")
    if imported is None:
        return
    trace = imported.recording
    assert isinstance(trace, RoutingTrace)
    assert trace.token_hash is not None
    written: Counter[Any] = Counter()
    for record in records:
        ids = record["topk_ids_of_layer"].numpy().transpose(1, 0, 2)[:, :, : trace.top_k]
        for position, token, rows in zip(record["positions"], record["input_ids"], ids.tolist(), strict=True):
            distinct = tuple(
                tuple(rows[layer]) if len(set(rows[layer])) == trace.top_k and min(rows[layer]) >= 0 else None
                for layer in trace.metadata.layer_map
            )
            written[position, token, distinct] += 1
    held: Counter[Any] = Counter(
        (position, token, tuple(None if row is None else tuple(row) for row in rows))
        for position, token, rows in zip(
            trace.position.tolist(), trace.token_hash.tolist(), rows_of(trace), strict=True
        )
    )
    assert held == written


# Loads and logits


def tensors_in(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a safetensors file, by its own library."""
    with safe_open(path, framework="np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@FUZZ
@given(st.data())
def test_tensorrt_llm_bytes(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "statistic"
    folder.mkdir(exist_ok=True)
    meta, rank = folder / "meta_info.json", folder / "rank0.safetensors"
    meta.write_text('{"num_experts": 3, "num_experts_per_token": 2}')
    save_file({f"{i}_{layer}": np.array([i, 2, layer + 1]) for i in range(2) for layer in range(2)}, rank)
    target = data.draw(st.sampled_from([meta, rank]))
    target.write_bytes(damaged(data.draw, target.read_bytes()))
    imported = attempt_in(folder, "tensorrt_llm", ImportOptions(model="own"))
    if imported is None:
        return
    load = imported.recording
    assert isinstance(load, ExpertLoad)
    assert json.loads(meta.read_text())["num_experts_per_token"] == load.metadata.top_k
    tensors = tensors_in(rank)
    assert load.counts.sum() == sum(float(part.sum()) for part in tensors.values())
    for row, layer in enumerate(load.metadata.layer_map):
        steps = [tensors[name] for name in sorted(tensors) if int(name.split("_")[1]) == layer]
        np.testing.assert_array_equal(load.counts[:, row].sum(axis=0), sum(steps))


def attempt_in(folder: Path, format: str, options: ImportOptions) -> Imported | None:
    """As ``attempt``, for a folder."""
    try:
        return import_recording(folder, format, options)
    except ForestageError as error:
        refusal = str(error)
    assert "\n" not in refusal
    assert str(folder) in refusal
    return None


@FUZZ
@given(st.data())
def test_eplb_bytes(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / ("load" + data.draw(st.sampled_from([".npz", ".json"])))
    weight = np.array([[1, 2, 30], [4, 0, 6]])
    if path.suffix == ".npz":
        np.savez(path, weight=weight)
    else:
        path.write_text(json.dumps({"weight": weight.tolist()}))
    path.write_bytes(damaged(data.draw, path.read_bytes()))
    imported = attempt(path, "eplb", ImportOptions(model="own"))
    if imported is None:
        return
    assert isinstance(imported.recording, ExpertLoad)
    said = weight if path.suffix == ".npz" else np.array(json.loads(path.read_text())["weight"])
    np.testing.assert_array_equal(imported.recording.counts[0], said[said.sum(axis=1) > 0])


@FUZZ
@given(st.data())
def test_router_logits_bytes(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / "logits.safetensors"
    generator = np.random.default_rng(0)
    logits = {f"router_logits.{n}": generator.normal(size=(4, 6)).astype(np.float32) for n in range(2)}
    save_file({**logits, "input_ids": np.arange(4).reshape(2, 2)}, path)
    path.write_bytes(damaged(data.draw, path.read_bytes()))
    options = ImportOptions(model="our/own", top_k=2, select="logits", gate_weights="softmax")
    imported = attempt(path, "hf_router_logits", options)
    if imported is None:
        return
    trace = imported.recording
    assert isinstance(trace, RoutingTrace)
    said = tensors_in(path)
    for layer in range(trace.layers):
        rows = said[f"router_logits.{layer}"].astype(np.float32)
        for token in range(trace.tokens):
            best = rows[token][trace.expert_ids[token, layer]]
            assert sorted(best, reverse=True) == sorted(rows[token], reverse=True)[:2]


@FUZZ
@given(st.data())
def test_a_damaged_expert_map_is_refused_or_read_as_it_stands(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    from traces.importers.assembly.expert_map import read_expert_map

    path = tmp_path_factory.getbasetemp() / "map.json"
    document = {"physical_to_logical_map": [[0, 1, 2, 1], [2, 0, 1, 0]]}
    if data.draw(st.booleans()):
        at = data.draw(st.sampled_from(list(places(document))))
        path.write_text(json.dumps(changed(document, at, data.draw(VALUES))))
    else:
        path.write_bytes(damaged(data.draw, json.dumps(document).encode()))
    with contextlib.suppress(ForestageError):
        found = read_expert_map(path)
        said = json.loads(path.read_text())
        said = said if isinstance(said, list) else next(iter(said.values()))
        assert found.logical.tolist() == said


# JSON in pieces


@FUZZ
@given(st.data())
def test_records_are_those_of_the_standard_library(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    value = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda part: st.lists(part, max_size=3))
    values = data.draw(st.lists(st.dictionaries(st.text(max_size=3), value, max_size=3), min_size=1, max_size=4))
    ascii_only = data.draw(st.booleans())
    whole = "\n".join(json.dumps(part, ensure_ascii=ascii_only) for part in values)
    path = tmp_path_factory.getbasetemp() / "records.json"
    with contextlib.suppress(UnicodeEncodeError):
        path.write_text(json.dumps(values, ensure_ascii=ascii_only), encoding="utf-8")
        assert [part for _, part in read_records(path, Report())] == values
        path.write_text(whole, encoding="utf-8")
        assert [part for _, part in read_records(path, Report())] == values
        path.write_bytes(damaged(data.draw, whole.encode()))
        with contextlib.suppress(ForestageError):
            list(read_records(path, Report()))


def test_the_fuzzers_base_is_accepted(tmp_path: Path) -> None:
    """The recordings that are damaged above are whole themselves."""
    path = tmp_path / "fuzz.json"
    check_vllm(path, json.dumps(vllm_response()))
    assert attempt(path, "vllm_response") is not None
    with pytest.raises(SafetensorError):
        tensors_in(path)
