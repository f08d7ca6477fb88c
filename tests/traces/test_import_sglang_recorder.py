"""SGLang's expert-distribution recorder, its files written here by torch.save."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from catalog.errors import ForestageError
from tests.traces.recorded_ids import random_ids
from traces import DECODE, PREFILL, RoutingTrace
from traces.expert_load import ExpertLoad
from traces.importers import Imported, ImportOptions, import_recording, sniff_format

torch = pytest.importorskip("torch", reason="writes the .pt files that the recorder writes")

EXTEND, DECODING, MIXED, IDLE = 1, 2, 3, 4
LAYERS, TOP_K, EXPERTS = 3, 2, 8
OWN = {"model": "our/own", "experts": EXPERTS}
Ids = npt.NDArray[np.int64]


def trace_in(path: Path, **options: Any) -> tuple[RoutingTrace, Imported]:
    imported = import_recording(path, options=ImportOptions(**{**OWN, **options}))
    assert isinstance(imported.recording, RoutingTrace)
    return imported.recording, imported


class Server:
    """Runs requests as the scheduler does, and records what the recorder would."""

    def __init__(self, seed: int = 0, rank: int = 0, dense: int = 1) -> None:
        self.generator = np.random.default_rng(seed)
        self.rank = rank
        self.dense = dense
        self.records: list[dict[str, Any]] = []
        self.passes = 0
        self.requests: dict[str, list[tuple[int, int, int, Ids]]] = {}

    def run(self, mode: int, parts: list[tuple[str, int]], start: int = 0, *, key: str = "primary") -> None:
        """A pass of ``(request, tokens)``; a new request begins at ``start``."""
        tokens = sum(count for _, count in parts)
        ids = random_ids(tokens, LAYERS, TOP_K, EXPERTS, int(self.generator.integers(1 << 30)))
        words = self.generator.integers(50_000, size=tokens)
        positions = []
        row = 0
        for request, count in parts:
            lived = self.requests.setdefault(request, [])
            first = lived[-1][0] + 1 if lived else start
            decoding = mode == DECODING or (mode == MIXED and bool(lived))
            for offset in range(count):
                positions.append(first + offset)
                lived.append((first + offset, DECODE if decoding else PREFILL, int(words[row]), ids[row]))
                row += 1
        padded = np.full((LAYERS + self.dense, tokens, 8), -1)
        padded[self.dense :, :, :TOP_K] = ids.transpose(1, 0, 2)
        self.records.append(
            {
                "forward_pass_id": self.passes,
                "rank": self.rank,
                "gatherer_key": key,
                "input_ids": words.tolist(),
                "positions": positions,
                "extend_seq_lens": None if mode in (DECODING, IDLE) else [count for _, count in parts],
                "forward_mode": mode,
                "topk_ids_of_layer": torch.from_numpy(padded).int(),
                "misc_objects": [],
                "global_physical_count": torch.zeros((LAYERS + self.dense, EXPERTS), dtype=torch.int32),
            }
        )
        self.passes += 1

    def save(self, folder: Path, expert_map: Any = "trivial") -> Path:
        if isinstance(expert_map, str):
            expert_map = torch.arange(EXPERTS).repeat(LAYERS + self.dense, 1)
        path = folder / f"expert_distribution_recorder_1700000000.5_{self.rank}.pt"
        torch.save({"records": self.records, "last_physical_to_logical_map": expert_map}, path)
        return path

    def assert_holds(self, trace: RoutingTrace) -> None:
        """``trace`` has exactly these requests, in the order in which they came."""
        assert trace.token_hash is not None
        assert trace.sequences == len(self.requests)
        for index, lived in enumerate(self.requests.values()):
            part = trace.sequence_slice(index)
            assert trace.position[part].tolist() == [token[0] for token in lived]
            assert trace.phase[part].tolist() == [token[1] for token in lived]
            assert trace.token_hash[part].tolist() == [token[2] for token in lived]
            np.testing.assert_array_equal(trace.expert_ids[part], np.stack([token[3] for token in lived]))


def test_requests_of_different_lengths_are_told_apart(tmp_path: Path) -> None:
    server = Server()
    server.run(EXTEND, [("a", 5), ("b", 3)])
    server.run(DECODING, [("a", 1), ("b", 1)])
    server.run(EXTEND, [("c", 9)])
    server.run(DECODING, [("a", 1), ("b", 1), ("c", 1)])
    server.run(DECODING, [("a", 1), ("c", 1)])
    server.run(DECODING, [("c", 1)])
    path = server.save(tmp_path)
    assert sniff_format(path) == "sglang_per_token"
    trace, imported = trace_in(path)
    server.assert_holds(trace)
    assert trace.metadata.layer_map == (1, 2, 3)
    assert (trace.metadata.ranked, trace.top_k) == (False, TOP_K)
    assert not imported.warnings


def test_a_prefill_in_pieces_and_one_that_the_cache_began(tmp_path: Path) -> None:
    server = Server()
    server.run(EXTEND, [("a", 4)])
    server.run(EXTEND, [("a", 4), ("b", 2)])
    server.run(EXTEND, [("a", 1)])
    server.run(DECODING, [("b", 1), ("a", 1)])
    server.run(EXTEND, [("c", 3)], start=64)
    server.run(DECODING, [("b", 1), ("a", 1), ("c", 1)])
    trace, imported = trace_in(server.save(tmp_path))
    server.assert_holds(trace)
    assert len(imported.warnings) == 1
    assert "64 cached tokens at the beginning of 1 requests have no rows" in imported.warnings[0]


def test_a_prefill_that_goes_on_where_several_stand_is_told(tmp_path: Path) -> None:
    server = Server()
    server.run(EXTEND, [("a", 4), ("b", 4)])
    server.run(EXTEND, [("b", 3)])
    trace, imported = trace_in(server.save(tmp_path))
    assert trace.sequence_offsets.tolist() == [0, 4, 8, 11]
    assert any("1 prefills go on where several requests stand" in warning for warning in imported.warnings)


def test_a_mixed_pass_and_idle_ones(tmp_path: Path) -> None:
    server = Server()
    server.run(EXTEND, [("a", 5)])
    server.run(IDLE, [])
    server.run(DECODING, [("a", 1)])
    server.run(MIXED, [("b", 7), ("a", 1)])
    server.run(DECODING, [("a", 1), ("b", 1)])
    server.run(MIXED, [("c", 3), ("a", 1), ("b", 1)])
    trace, _ = trace_in(server.save(tmp_path))
    server.assert_holds(trace)


def test_fused_shared_experts_are_no_routed_ones(tmp_path: Path) -> None:
    """They stand after the chosen, with ids from the number of experts on."""
    server = Server()
    server.run(EXTEND, [("a", 5)])
    server.run(DECODING, [("a", 1)])
    for record in server.records:
        record["topk_ids_of_layer"][1:, :, TOP_K] = EXPERTS
        record["topk_ids_of_layer"][1:, ::2, TOP_K + 1] = EXPERTS + 1
        record["topk_ids_of_layer"][1:, 1::2, TOP_K + 1] = EXPERTS + 2
    for expert_map in ("trivial", None):
        trace, imported = trace_in(server.save(tmp_path, expert_map))
        server.assert_holds(trace)
        assert any("2 columns after the chosen hold ids beyond" in warning for warning in imported.warnings)
    server.records[1]["topk_ids_of_layer"][2, 0, TOP_K] = 3
    with pytest.raises(ForestageError, match=r"the expert map .* has physical experts 0 to 7"):
        trace_in(server.save(tmp_path))


def test_columns_of_zeros_are_padding(tmp_path: Path) -> None:
    server = Server()
    server.run(EXTEND, [("a", 5)])
    for record in server.records:
        record["topk_ids_of_layer"][record["topk_ids_of_layer"] == -1] = 0
    trace, _ = trace_in(server.save(tmp_path))
    server.assert_holds(trace)


def test_requests_of_one_length_are_paired_in_order_and_told(tmp_path: Path) -> None:
    server = Server()
    server.run(EXTEND, [("a", 5), ("b", 5), ("c", 2)])
    server.run(DECODING, [("a", 1), ("b", 1), ("c", 1)])
    trace, imported = trace_in(server.save(tmp_path))
    server.assert_holds(trace)
    assert any("2 decode tokens were given to requests of the same length" in w for w in imported.warnings)


def test_where_one_of_two_of_a_length_ended_the_other_is_broken_off(tmp_path: Path) -> None:
    server = Server()
    server.run(EXTEND, [("a", 5), ("b", 5)])
    server.run(DECODING, [("b", 1)])
    server.run(DECODING, [("b", 1)])
    trace, imported = trace_in(server.save(tmp_path))
    assert trace.sequence_offsets.tolist() == [0, 5, 10, 12]
    assert trace.position.tolist() == [*range(5), *range(5), 5, 6]
    assert any("1 decode tokens begin sequences of their own" in w for w in imported.warnings)


def test_a_recording_that_begins_in_the_midst_of_requests_says_so(tmp_path: Path) -> None:
    server = Server()
    server.run(DECODING, [("a", 1)], start=7)
    server.run(DECODING, [("a", 1), ("b", 1)], start=30)
    trace, imported = trace_in(server.save(tmp_path))
    server.assert_holds(trace)
    assert any("2 decode tokens go on from a position where no request ended" in line for line in imported.warnings)


def test_half_batches_of_one_pass_belong_together(tmp_path: Path) -> None:
    server = Server()
    server.run(EXTEND, [("a", 5), ("b", 3)])
    server.run(DECODING, [("a", 1)], key="child_a")
    server.run(DECODING, [("b", 1)], key="child_b")
    for record in server.records[1:]:
        record["forward_pass_id"] = 1
    trace, _ = trace_in(server.save(tmp_path))
    server.assert_holds(trace)


def test_ranks_of_a_folder_follow_each_other_and_copies_are_left_out(tmp_path: Path) -> None:
    first, second = Server(1, rank=0), Server(2, rank=10)
    for server in (first, second):
        server.run(EXTEND, [("a", 3)])
        server.run(DECODING, [("a", 1)])
        server.save(tmp_path)
    assert sniff_format(tmp_path) == "sglang_per_token"
    trace, imported = trace_in(tmp_path)
    assert trace.sequence_offsets.tolist() == [0, 4, 8]
    np.testing.assert_array_equal(trace.expert_ids[:4], np.stack([token[3] for token in first.requests["a"]]))
    assert not imported.warnings
    copy = Server(1, rank=2)
    copy.run(EXTEND, [("a", 3)])
    copy.run(DECODING, [("a", 1)])
    copy.save(tmp_path)
    again, imported = trace_in(tmp_path)
    assert again.equals(trace)
    assert any("the same tokens as" in warning for warning in imported.warnings)


def replicated(dense: int) -> npt.NDArray[np.int64]:
    """Eight logical experts on ten physical ones, placed differently in every layer: ``[layers, physical]``."""
    generator = np.random.default_rng(7)
    return np.stack([generator.permutation([*range(EXPERTS), 3, 5]) for _ in range(LAYERS + dense)])


def physical_records(server: Server, placement: npt.NDArray[np.int64]) -> None:
    """Rewrite the records' logical ids as ids of any of their copies."""
    generator = np.random.default_rng(8)
    for record in server.records:
        ids = record["topk_ids_of_layer"].numpy().copy()
        for layer, token, slot in np.argwhere(ids >= 0):
            copies = np.flatnonzero(placement[layer] == ids[layer, token, slot])
            ids[layer, token, slot] = generator.choice(copies)
        record["topk_ids_of_layer"] = torch.from_numpy(ids)
        record["global_physical_count"] = torch.zeros((len(placement), 10), dtype=torch.int32)


def test_physical_ids_become_logical_by_the_recorders_map_or_the_users(tmp_path: Path) -> None:
    server = Server()
    server.run(EXTEND, [("a", 9)])
    server.run(DECODING, [("a", 1)])
    placement = replicated(1)
    physical_records(server, placement)
    trace, imported = trace_in(server.save(tmp_path, torch.from_numpy(placement)))
    server.assert_holds(trace)
    assert not imported.warnings
    path = server.save(tmp_path, None)
    with pytest.raises(ForestageError, match="10 physical experts, but our/own has 8; import it with --expert-map"):
        trace_in(path, experts=8)
    chosen = tmp_path / "map.json"
    chosen.write_text(f'{{"physical_to_logical_map": {placement.tolist()}}}')
    assert trace_in(path, expert_map=chosen)[0].equals(trace)
    torch.save({"phy2log": torch.from_numpy(placement)}, tmp_path / "map.pt")
    assert trace_in(path, expert_map=tmp_path / "map.pt")[0].equals(trace)
    np.savez(tmp_path / "short.npz", phy2log=placement[1:])
    with pytest.raises(ForestageError, match=r"4 layers, but the expert map .* has 3"):
        trace_in(path, expert_map=tmp_path / "short.npz")
    np.savez(tmp_path / "few.npz", phy2log=np.tile(np.append(np.arange(8), 0), (len(placement), 1)))
    with pytest.raises(ForestageError, match=r"10 physical experts, but the expert map .* has 9"):
        trace_in(path, expert_map=tmp_path / "few.npz")


def test_without_a_map_ids_are_taken_as_logical_and_told(tmp_path: Path) -> None:
    server = Server()
    server.run(EXTEND, [("a", 4)])
    trace, imported = trace_in(server.save(tmp_path, None))
    server.assert_holds(trace)
    assert any("physical ids without a map" in warning for warning in imported.warnings)
    del server.records[0]["global_physical_count"]
    with pytest.raises(ForestageError, match=r"\d physical experts, but our/own has 4; import it with --expert-map"):
        trace_in(server.save(tmp_path, None), experts=4)


def test_top_k_is_what_is_used_of_the_eight_columns(tmp_path: Path) -> None:
    server = Server()
    server.run(EXTEND, [("a", 4)])
    path = server.save(tmp_path)
    assert trace_in(path, top_k=2)[0].top_k == 2
    with pytest.raises(ForestageError, match="--top-k 1: the rows hold 2 ids"):
        trace_in(path, top_k=1)
    with pytest.raises(ValueError, match="--top-k 9: more than the 8 of --experts"):
        trace_in(path, top_k=9)


def test_a_zeroed_buffer_as_older_recorders_have(tmp_path: Path) -> None:
    """Dense layers are rows of zeros; the padding too, where ``--top-k`` must say what it is."""
    server = Server()
    server.run(EXTEND, [("a", 9)])
    placement = replicated(1)
    physical_records(server, placement)
    for record in server.records:
        record["topk_ids_of_layer"][0] = 0
    server.assert_holds(trace_in(server.save(tmp_path, torch.from_numpy(placement)))[0])
    for record in server.records:
        record["topk_ids_of_layer"][record["topk_ids_of_layer"] < 0] = 0
    server.assert_holds(trace_in(server.save(tmp_path, torch.from_numpy(placement)), top_k=2)[0])


FAULTS: dict[str, tuple[str, Any, str]] = {
    "verify": ("forward_mode", 5, "forward_mode: 5; read are 1 extend.*speculative"),
    "mode": ("forward_mode", True, "forward_mode: True"),
    "odd mode": ("forward_mode", {}, "forward_mode: {}"),
    "positions": ("positions", [0, 1], r"2 positions, but 4 input_ids"),
    "gap": ("positions", [0, 1, 3, 4], "must be consecutive"),
    "negative": ("positions", [-1, 0, 1, 2], "positions: expected a list of whole numbers"),
    "text": ("input_ids", "abcd", "input_ids: expected a list"),
    "lengths": ("extend_seq_lens", [3], "extend_seq_lens add up to 3 of 4"),
    "no lengths": ("extend_seq_lens", None, "extend_seq_lens: expected a list"),
    "pass": ("forward_pass_id", "x", "forward_pass_id: 'x'"),
    "per_pass": ("topk_ids_of_layer", None, "record with the mode per_token"),
    "id": ("topk_ids_of_layer", torch.full((4, 4, 8), 8), "8; the expert map .* has physical experts 0 to 7"),
    "counts": ("global_physical_count", torch.zeros((4, 9)), "9 physical experts, but the expert map"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_record_is_refused_in_one_line(fault: str, tmp_path: Path) -> None:
    field, value, message = FAULTS[fault]
    server = Server()
    server.run(EXTEND, [("a", 4)])
    server.records[0][field] = value
    path = server.save(tmp_path)
    with pytest.raises(ForestageError, match=rf"_0\.pt: record 0: .*{message}") as caught:
        trace_in(path)
    assert "\n" not in str(caught.value)


def load_in(path: Path, **options: Any) -> tuple[ExpertLoad, Imported]:
    imported = import_recording(path, options=ImportOptions(**options))
    assert isinstance(imported.recording, ExpertLoad)
    return imported.recording, imported


def stat_file(folder: Path, counts: npt.NDArray[np.int64]) -> Path:
    path = folder / "expert_distribution_recorder_1700000000.5.pt"
    value = {"rank": 0, "logical_count": torch.from_numpy(counts).int(), "average_utilization_rate_over_window": None}
    torch.save(value, path)
    return path


def choices_counted(steps: int, layers: int, experts: int) -> npt.NDArray[np.int64]:
    """As many choices in every layer of a step."""
    tokens = np.random.default_rng(0).integers(40, 90, steps)
    generator = np.random.default_rng(1)
    return np.stack([generator.multinomial(n, np.full(experts, 1 / experts), layers) for n in tokens * experts])


def test_stat_leaves_out_unused_steps_and_dense_layers(tmp_path: Path) -> None:
    counts = choices_counted(10, 27, 64)
    counts[:, 0] = 0
    counts[6:] = 0
    path = stat_file(tmp_path, counts)
    assert sniff_format(path) == "sglang_stat"
    load, imported = load_in(path, model="DeepSeek-V2-Lite")
    np.testing.assert_array_equal(load.counts, counts[:6, 1:])
    assert (load.metadata.model, load.metadata.layer_map) == ("DeepSeek-V2-Lite", tuple(range(1, 27)))
    assert load.metadata.steps_ordered
    assert len(imported.warnings) == 1
    assert "expert loads only" in imported.warnings[0]


def test_stat_tells_of_tokens_counted_by_every_rank_and_of_layers_not_counted_whole(tmp_path: Path) -> None:
    counts = choices_counted(10, 3, 8)
    assert len(load_in(stat_file(tmp_path, counts), model="own")[1].warnings) == 2  # loads only, a full buffer
    load, imported = load_in(stat_file(tmp_path, counts * 4), model="own")
    np.testing.assert_array_equal(load.counts, counts * 4)
    assert any("every count is a multiple of 4" in warning for warning in imported.warnings)
    counts[2, 1, 3] += 1
    _, imported = load_in(stat_file(tmp_path, counts), model="own")
    assert any("in 1 of 10 steps the layers counted different numbers" in warning for warning in imported.warnings)


@pytest.mark.parametrize("unused", [[], [3, 4]])
def test_a_full_or_gappy_circular_buffer_has_no_known_order(unused: list[int], tmp_path: Path) -> None:
    counts = np.random.default_rng(0).integers(1, 9, (8, 3, 4))
    counts[unused] = 0
    load, imported = load_in(stat_file(tmp_path, counts), model="own")
    assert load.steps == 8 - len(unused)
    assert not load.metadata.steps_ordered
    assert any("may have wrapped" in warning for warning in imported.warnings)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (np.zeros((4, 3, 4), np.int64), "every step is zero"),
        (np.full((4, 3, 4), -1), "-1; expected a number"),
        (np.ones((3, 4), np.int64), r"expected integers \[steps, layers, experts\]"),
    ],
)
def test_faulty_counts_are_refused(counts: npt.NDArray[np.int64], message: str, tmp_path: Path) -> None:
    with pytest.raises(ForestageError, match=message):
        load_in(stat_file(tmp_path, counts), model="own")
