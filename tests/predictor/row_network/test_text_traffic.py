"""The memory of the text as traffic: what it tells the net comes to the kernels' sums, and its bytes lie as is said."""

from typing import Any

import numpy as np
import pytest

from catalog.errors import ForestageError
from predictor.next_layer.recipes import NextLayerConfig
from predictor.next_use.recipes import NextUseConfig
from predictor.row_network import kernels
from predictor.row_network.kernels import UNKNOWN, add_rows, routing_token
from predictor.row_network.sources import MATCHED
from predictor.row_network.text_traffic import (
    NO_ROW,
    Item,
    Kind,
    TextLimits,
    TextSettings,
    TextTraffic,
    Work,
    bursts,
)
from predictor.row_network.twin import RowNetwork
from tests.conftest import SHIPPED
from tests.learned_samples import identified_trace, random_predictor
from traces import RoutingTrace

LIMITS = TextLimits(slots=2, lanes=64, experts_max=512)


def settings_of(network: RowNetwork, **changes: Any) -> TextSettings:
    shape = {"layers": network.layers, "experts": network.experts, "top_k": network.top_k}
    own = TextSettings.of([network.config], **shape, lanes=64, text_base=0x1000, identity_base=0x100000)
    stride = own.identities * own.age_beats * 64
    return own.model_copy(update={"identity_stride": stride, **changes})


def add_items(network: RowNetwork, now: np.ndarray, items: list[Item]) -> None:
    """What the net adds to its sums for these items."""
    rules, tables = network.rules, network.tables
    count = len(rules.lengths)
    for item in items:
        if item.kind == Kind.IDENTITY:
            of_layer = now[item.layer, item.part * LIMITS.lanes :][: LIMITS.lanes]
            row = np.frombuffer(item.data, np.int8)[: len(of_layer)]
            of_layer += row.astype(np.int32) << tables.identity_shifts[item.layer, item.index]
        elif item.kind == Kind.RECORD:
            for source in range(len(rules.ages)):
                if rules.ages[source] != MATCHED:
                    continue
                index, first, last = rules.indices[source], rules.firsts[source], rules.lasts[source]
                reads = item.index == index if index >= 0 else first <= item.index - count <= last
                if reads:
                    shift = int(tables.source_shifts[item.layer, source])
                    ids = np.array(item.ids, np.int16)
                    add_rows(now[item.layer], tables.rows[item.layer, source], ids, rules.rank_shifts, shift)


def compare(network: RowNetwork, trace: RoutingTrace, tokens: int, *, drop: float = 0.0) -> list[Work]:
    """Every token of ``trace``: the sums that the items come to are the kernels'."""
    traffic = TextTraffic(LIMITS, settings_of(network), network.tables.identity_rows)
    rules, tables, state = network.rules, network.compiled_tables, network.new_state(1)
    generator = np.random.default_rng(0)
    hashes = None if trace.token_hash is None else np.asarray(trace.token_hash[:tokens]).astype(np.int64)
    starts = set(trace.sequence_offsets.tolist())
    works = []
    for token in range(tokens):
        if token in starts:
            kernels.start_sequence(state)
        known = hashes is not None and generator.random() >= drop
        identity = int(hashes[token]) if known and hashes is not None else UNKNOWN
        row = int(network.identity_index(np.array([identity]))[0])
        expected = state.now.copy()
        kernels.begin_token(rules, tables, state, identity, row)
        work = traffic.token(
            1, starts=token in starts, identity=None if identity < 0 else identity, row=NO_ROW if row < 0 else row
        )
        add_items(network, expected, work.items)
        np.testing.assert_array_equal(expected, state.now, err_msg=f"token {token}")
        works.append(work)
        for layer in range(network.layers):
            recorded = bool(generator.random() >= drop)
            ids = np.asarray(trace.expert_ids[token, layer]).astype(np.int16)
            done = traffic.gate(1, layer, ids if recorded else None)
            if layer == 0 and rules.by_routing:
                before = state.now.copy()
                # The gate's own rows come after the text: they are left out by looking up alone.
                looked = type(state)(*(np.copy(part) for part in state))
                kernels.add_text(rules, tables, looked, routing_token(ids, recorded))
                add_items(network, before, done[0].items)
                np.testing.assert_array_equal(before, looked.now, err_msg=f"token {token}, by routing")
            kernels.observe(rules, tables, state, layer, ids, recorded)
            works += done
        kernels.end_token(rules, state)
    return works


CASES: dict[str, dict[str, Any]] = {
    "identity": {},
    "routing": {"ngram_by": "routing", "identity_rows": 0, "identities": 0},
    "no identity rows": {"identity_rows": 0, "identities": 0},
    "windows alone": {"at_match": False, "continuation_windows": ((1, 1), (2, 2), (3, 4), (5, 8))},
    "no text": {"ngram_tables": ()},
    "one record": {"log_tokens": 1, "ngram_entries": 1},
    "two beats a row": {"hidden": 70},
}


@pytest.mark.parametrize("drop", [0.0, 0.15])
@pytest.mark.parametrize("case", CASES)
def test_items_come_to_the_kernels_sums(case: str, drop: float) -> None:
    network = random_predictor(layers=3, experts=9, top_k=2, **CASES[case]).network
    trace = identified_trace(layers=3, experts=9, top_k=2, lengths=(40, 30))
    works = compare(network, trace, 70, drop=drop)
    if network.rules.lengths.size and network.config.log_tokens > 1:
        assert any(item.kind == Kind.RECORD for work in works for item in work.items)


def test_items_of_the_shipped_trace_come_to_the_kernels_sums() -> None:
    trace = RoutingTrace.load(SHIPPED / "trace.safetensors")
    shape = {"layers": trace.layers, "experts": trace.experts, "top_k": trace.top_k}
    for by in ("routing", "identity"):
        own = {"ngram_by": by, "ngram_tables": (1, 2, 3), "ngram_entries": 4096, "log_tokens": 256}
        network = random_predictor(**shape, **own, identity_rows=0, identities=0).network
        works = compare(network, trace, 400)
        if by == "routing" or trace.token_hash is not None:
            assert sum(item.kind == Kind.RECORD for work in works for item in work.items) > 1000


def test_entry_and_record_lie_where_is_said() -> None:
    """By hand: the second of two tables of four entries, the second record of the second slot."""
    settings = TextSettings(
        layers=2, experts=300, top_k=2, lengths=(1, 2), entries=4, log_tokens=8, at_match=True, text_base=0x1000,
        text_stride=0x400,
    )  # fmt: skip
    assert (settings.record_beats, settings.log_offset, settings.text_bytes) == (1, 128, 128 + 8 * 64)
    traffic = TextTraffic(LIMITS, settings)
    first = traffic.token(1, starts=True, identity=6, row=NO_ROW)
    # Of one token: key 6, entry 2, in the first beat of slot 1. A token alone is no n-gram of two.
    assert [transfer.bursts for transfer in first.reads] == [[(0x1400, 1)]]
    (written,) = first.writes
    assert (written.address, written.strobe) == (0x1400, 0xFFFF << 32)
    assert np.frombuffer(written.data[0], "<u4").tolist() == [0] * 8 + [6, 0, 1, 0] + [0] * 4
    assert traffic.gate(1, 0, [3, 258]) == []
    (ended,) = traffic.gate(1, 1, None)
    assert ended.writes[0].address == 0x1400 + 128
    assert np.frombuffer(ended.writes[0].data[0], "<u2").tolist() == [3, 258, 0xFFFF, 0xFFFF] + [0] * 28
    second = traffic.token(1, starts=False, identity=6, row=NO_ROW)
    key = (6 << 7 ^ 6) & 0xFFFFFFFF  # rotated by 7, then this token's
    assert [transfer.address for transfer in second.reads] == [0x1400, 0x1440, 0x1480]
    assert np.frombuffer(second.writes[1].data[0], "<u4")[8:12].tolist() == [key, 1, 1, 0]
    assert second.items[:-1] == [Item(Kind.RECORD, 1, index=0, layer=0, ids=(3, 258))]


def test_what_fails_is_not_there_and_a_failed_write_ends_the_text() -> None:
    settings = TextSettings(
        layers=2, experts=9, top_k=2, lengths=(1,), entries=4, log_tokens=8, at_match=True, text_stride=0x400
    )  # fmt: skip
    traffic = TextTraffic(LIMITS, settings)

    def token(starts: bool = False) -> Work:
        work = traffic.token(0, starts=starts, identity=5, row=NO_ROW)
        traffic.gate(0, 0, [1, 2])
        traffic.gate(0, 1, [3, 4])
        return work

    token(starts=True)
    assert [item.layer for item in token().items[:-1]] == [0, 1]
    traffic.read_fails = lambda address: address < 64  # the table
    failed = token()
    assert failed.items == [Item(Kind.END, 0, failed=True)]
    assert [transfer.kind for transfer in failed.reads] == [Kind.ENTRY]
    traffic.read_fails = lambda address: address >= 64  # the log
    assert token().items == [Item(Kind.END, 0, failed=True)]
    traffic.read_fails = lambda address: False
    traffic.write_fails = lambda address: address >= 64
    assert token().items[-1] == Item(Kind.END, 0)
    off = token()
    assert (off.reads, off.writes, off.items) == ([], [], [Item(Kind.END, 0)])
    traffic.write_fails = lambda address: False
    assert token().reads == []
    assert token(starts=True).reads
    assert len(token().items) == 3


def test_bursts_end_at_pages() -> None:
    assert list(bursts(4096 - 64, 3)) == [(4096 - 64, 1), (4096, 2)]
    assert list(bursts(64, 127)) == [(64, 63), (4096, 64)]


def test_heads_share_one_memory_or_are_refused() -> None:
    shape = {"layers": 24, "experts": 32, "top_k": 4, "lanes": 128, "text_base": 0, "identity_base": 0}
    both = TextSettings.of([NextLayerConfig(), NextUseConfig()], **shape)
    assert (both.lengths, both.at_match, both.window, both.identities) == ((1, 2, 3), True, (1, 8), 2)
    assert both.text_stride == 3 * 4096 * 16 + 4096 * 128
    both.check(TextLimits())
    with pytest.raises(ForestageError, match=r"ngram_entries: the heads differ \(1024, 4096\); one memory"):
        TextSettings.of([NextLayerConfig(), NextUseConfig(ngram_entries=1024)], **shape)
    with pytest.raises(ForestageError, match="identities: both heads look at identity rows"):
        TextSettings.of([NextLayerConfig(), NextUseConfig(identities=1, identity_rows=4)], **shape)
    with pytest.raises(ForestageError, match="text: the window's last token: 8 where the engine has room for 4"):
        both.check(TextLimits(reach_max=4))
    alone = TextSettings.of([NextLayerConfig(), NextUseConfig(ngram_tables=())], **shape)
    assert (alone.window, alone.lengths) == ((0, -1), (1, 2, 3))
