"""What importers tell of their progress: how much of the whole is done, never more, and at the end all of it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file

import tests.traces.test_import_dynande as dynande
import tests.traces.test_import_esft as esft
import tests.traces.test_import_gpt_oss_fingerprint as gpt_oss_fingerprint
import tests.traces.test_import_llama_cpp_dump as llama_cpp_dump
import tests.traces.test_import_load_layouts as load_layouts
import tests.traces.test_import_loads as loads
import tests.traces.test_import_megatron as megatron
import tests.traces.test_import_moe_beyond as moe_beyond
import tests.traces.test_import_vllm_offline as vllm_offline
from tests.traces.test_import_fuzz import forward_passes, sglang_response, vllm_response
from traces.importers import ImportOptions, import_recording
from traces.importers.assembly.complete_lines import complete_lines
from traces.importers.assembly.json_records import read_records
from traces.importers.assembly.server_events import read_file
from traces.importers.assembly.text_file import read_lines
from traces.importers.report import Report

Made = tuple[Path, dict[str, Any]]
"""A recording, and the options with which it is imported."""

TOY = {"model": "toy", "experts": 8}


def shown(source: Path, format: str, options: dict[str, Any]) -> list[tuple[int, int]]:
    """The calls of progress during an import."""
    calls: list[tuple[int, int]] = []
    chosen = ImportOptions.parse(options, origin="test")
    import_recording(source, format, chosen, progress=lambda done, total: calls.append((done, total)))
    return calls


def each(parts: int) -> list[tuple[int, int]]:
    return [(done, parts) for done in range(1, parts + 1)]


def dynande_layers(folder: Path, parts: int) -> Made:
    for layer in range(parts):
        rows = [dynande.row(dynande.LAYERS[0], token, shown=layer) for token in range(dynande.TOKENS)]
        text = dynande.text_of(rows)
        (folder / f"layer_{layer}.csv").write_text(text)
    return folder, {"model": "toy"}


def esft_domains(folder: Path, parts: int) -> Made:
    for domain in range(parts):
        esft.write(folder / f"domain{domain}")
    return folder, {"model": "toy", "experts": 16, "top_k": esft.TOP_K}


def moe_beyond_prompts(folder: Path, parts: int) -> Made:
    for prompt in range(parts):
        (folder / f"prompt_{prompt}_data.csv").write_text(moe_beyond.text_of(moe_beyond.prompt_rows(prompt)))
    return folder, TOY


def gpt_oss_fingerprint_files(folder: Path, parts: int) -> Made:
    for part in range(parts):
        (folder / f"part{part}_examples.json").write_text(json.dumps([gpt_oss_fingerprint.sequence(part)]))
    return folder, TOY


def megatron_ranks(folder: Path, parts: int) -> Made:
    for rank in range(parts):
        megatron.write(folder, megatron.calls(rank, seed=rank), rank)
    return folder, {"model": "toy", "experts": megatron.EXPERTS}


def table_sequences(folder: Path, parts: int) -> Made:
    for part in range(parts):
        rows = (f"{t},0,{t} {t + 1 + part}\n" for t in range(3))
        (folder / f"{part}.csv").write_text("tok,lay,exp\n" + "".join(rows))
    return folder, TOY | {"files": "sequence", "columns": {"token": "tok", "layer": "lay", "ids": "exp"}}


def table_loads(folder: Path, parts: int) -> Made:
    for part in range(parts):
        rows = (f"{layer},{expert},{1 + part + expert}\n" for layer in range(2) for expert in range(8))
        (folder / f"{part}.csv").write_text("l,e,n\n" + "".join(rows))
    return folder, TOY | {"files": "sequence", "columns": {"layer": "l", "expert": "e", "count": "n"}}


def sglang_dumps(folder: Path, parts: int) -> Made:
    for part in range(parts):
        load_layouts.write_rank(folder, 0, load_layouts.COUNTS[part], f"1744347{part}00.5")
    return folder, {"model": "own", "experts": 8}


def sglang_ranks(folder: Path, parts: int) -> Made:
    for part in range(parts):
        load_layouts.write_rank(folder, part, load_layouts.COUNTS[part])
    return folder, {"model": "own", "experts": 8}


def vllm_responses(folder: Path, parts: int) -> Made:
    for part in range(parts):
        (folder / f"{part}.json").write_text(json.dumps(vllm_response()))
    return folder, {"model": "our/own", "experts": 6}


def sglang_responses(folder: Path, parts: int) -> Made:
    for part in range(parts):
        (folder / f"{part}.json").write_text(json.dumps(sglang_response()))
    return folder, {"model": "our/own", "experts": 6, "top_k": 2, "layers": (0, 1)}


def tensorrt_llm_ranks(folder: Path, parts: int) -> Made:
    ranks = [loads.counts_of(3, 2, 8) * (rank + 1) for rank in range(parts)]
    return loads.write_folder(folder, ranks, [3, 11]), {"model": "own"}


def vllm_requests(folder: Path, parts: int) -> Made:
    for part in range(parts):
        vllm_offline.save(folder / f"request_{part}.npz", prompt=4 + part)
    return folder, {"model": vllm_offline.LITE}


def sglang_recorders(folder: Path, parts: int) -> Made:
    """The last two ranks saw the same tokens, so that one is left out."""
    torch = pytest.importorskip("torch", reason="writes .pt files")
    for rank in range(parts):
        passes = forward_passes()
        for record in passes:
            copied = min(rank, max(parts - 2, 0))
            record["input_ids"] = [10 * copied + token for token in record["input_ids"]]
            record["topk_ids_of_layer"] = torch.tensor(record["topk_ids_of_layer"])
        mapping = torch.arange(6).repeat(2, 1)
        path = folder / f"expert_distribution_recorder_1700000000.5_{rank}.pt"
        torch.save({"records": passes, "last_physical_to_logical_map": mapping}, path)
    return folder, {"model": "our/own", "experts": 6}


def router_logits_of_layers(folder: Path, parts: int) -> Made:
    logits = np.random.default_rng(0).normal(size=(parts, 4, 6)).astype(np.float32)
    path = folder / "logits.safetensors"
    save_file({f"router_logits.{layer}": part for layer, part in enumerate(logits)}, path)
    return path, {"model": "our/own", "top_k": 2, "select": "logits", "gate_weights": "softmax"}


WITH_OWN_PROGRESS: dict[str, tuple[str, Callable[[Path, int], Made]]] = {
    "dynande": ("dynande", dynande_layers),
    "esft": ("esft", esft_domains),
    "gpt_oss_fingerprint": ("gpt_oss_fingerprint", gpt_oss_fingerprint_files),
    "megatron": ("megatron", megatron_ranks),
    "moe_beyond": ("moe_beyond", moe_beyond_prompts),
    "SGLang's dumps": ("sglang_load_csv", sglang_dumps),
    "SGLang's ranks": ("sglang_load_csv", sglang_ranks),
    "sglang_response": ("sglang_response", sglang_responses),
    "tables of routing": ("table", table_sequences),
    "tables of loads": ("table", table_loads),
    "vllm_response": ("vllm_response", vllm_responses),
}
"""Several files, each of whose readers tells the bytes that it has read."""

WITHOUT: dict[str, tuple[str, Callable[[Path, int], Made]]] = {
    "hf_router_logits": ("hf_router_logits", router_logits_of_layers),
    "sglang_per_token": ("sglang_per_token", sglang_recorders),
    "tensorrt_llm": ("tensorrt_llm", tensorrt_llm_ranks),
    "vllm_offline": ("vllm_offline", vllm_requests),
}
"""Files or layers that are read at once."""


@pytest.mark.parametrize(("format", "make"), (every := WITH_OWN_PROGRESS | WITHOUT).values(), ids=every)
@pytest.mark.parametrize("parts", [2, 3])
def test_of_several_parts_those_that_are_done_are_counted(
    format: str, make: Callable[[Path, int], Made], parts: int, tmp_path: Path
) -> None:
    source, options = make(tmp_path, parts)
    assert shown(source, format, options) == each(parts)


def test_evaluations_that_are_done_are_counted(tmp_path: Path) -> None:
    options = {"model": "toy", "experts": llama_cpp_dump.EXPERTS, "top_k": llama_cpp_dump.TOP_K}
    source = llama_cpp_dump.write_folder(tmp_path / "dump")
    assert shown(source, "llama_cpp_dump", options) == each(len(llama_cpp_dump.EVALUATIONS))


@pytest.mark.parametrize(("format", "make"), WITH_OWN_PROGRESS.values(), ids=WITH_OWN_PROGRESS)
def test_a_single_file_tells_how_many_of_its_bytes_are_read(
    format: str, make: Callable[[Path, int], Made], tmp_path: Path
) -> None:
    source, options = make(tmp_path, 1)
    calls = shown(source, format, options)
    # Of a folder of layers, the first file's progress stands for all that are read beside it.
    sizes = {file.stat().st_size for file in source.rglob("*") if file.is_file()}
    assert len({total for _, total in calls}) == 1
    assert calls == sorted(calls)
    assert calls[0][0] > 0
    assert calls[-1][0] == calls[-1][1]
    assert calls[-1][1] in sizes


@pytest.mark.parametrize(("format", "make"), WITHOUT.values(), ids=WITHOUT)
def test_a_single_part_that_is_read_at_once_is_done_at_once(
    format: str, make: Callable[[Path, int], Made], tmp_path: Path
) -> None:
    source, options = make(tmp_path, 1)
    assert shown(source, format, options) == each(1)


def test_a_part_that_the_caller_skips_is_done_and_warnings_of_all_parts_are_kept() -> None:
    calls: list[tuple[int, int]] = []
    report = Report(lambda done, total: calls.append((done, total)))
    for part, of_part in report.apart("abc"):
        of_part.progress(5, 7)
        of_part.warn(part)
        if part != "b":
            continue
    assert calls == each(3)
    assert report.warnings == ["a", "b", "c"]
    assert [of_part is report for _, of_part in report.apart("a")] == [True]
    assert calls == each(3)


LINES = "0,1,2,3,4,5,6,7,8,9\n" * (2 * 4096 + 1000)
OBJECTS = [json.dumps({"choices": [{"index": 0, "text": "x" * 300_000}]}) for _ in range(20)]


@pytest.mark.parametrize(
    ("read", "text", "times"),
    [
        (complete_lines, LINES, 3),
        (read_lines, LINES, 3),
        (read_records, "\n".join(OBJECTS) + "\n" * 5_000_000, 20),
        (read_file, "".join(f"data: {one}\n\n" for one in OBJECTS) + "data: [DONE]\n" + "\n" * 50_000, 20),
    ],
)
def test_readers_of_text_tell_their_place_now_and_then_and_at_the_end_the_whole(
    read: Callable[[Path, Report], Iterator[Any]], text: str, times: int, tmp_path: Path
) -> None:
    path = tmp_path / "t"
    path.write_text(text)
    calls: list[tuple[int, int]] = []
    for _ in read(path, Report(lambda done, total: calls.append((done, total)))):
        pass
    assert len(calls) == times + 1
    assert calls == sorted(calls)
    assert 0 < calls[0][0] < len(text) / 4
    assert calls[-2][0] < len(text)
    assert {total for _, total in calls} == {len(text)}
    assert calls[-1][0] == len(text)


def test_a_parquet_file_tells_the_rows_that_it_has_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("traces.importers.assembly.table_source.BATCH_ROWS", 2)
    path = tmp_path / "t.parquet"
    rows = pa.table({"tok": [0, 1, 2, 3, 4], "lay": [0] * 5, "exp": [[n, n + 1] for n in range(5)]})
    pq.write_table(rows, path)
    columns = {"token": "tok", "layer": "lay", "ids": "exp"}
    assert shown(path, "table", TOY | {"columns": columns}) == [(2, 5), (4, 5), (5, 5)]
