"""Rows that the system model made itself are predicted without an error, and what is planted is seen."""

from dataclasses import replace

import pytest

from catalog.errors import ForestageError
from gpu_reference.records.micro import MicroKind
from perfmodel.measured import CopyLine
from predictor.policies.material import Material
from study.reference.comparison import compare_record
from tests.study.reference.made_records import (
    BACKGROUND,
    BELADY,
    EXPERTS,
    FREQUENCY,
    LAYERS,
    LINE,
    LRU,
    PREFETCH,
    SMALL_BYTES,
    STATIC,
    decoded,
    made_material,
    made_record,
    micro_rows,
    routed,
)


@pytest.fixture(scope="module")
def material() -> Material:
    return made_material()


def test_what_the_model_made_is_predicted_without_an_error(material: Material) -> None:
    rows = [
        decoded(material, LRU, "LRU"),
        decoded(material, LRU, "LRU", places=12, warm=20),
        decoded(material, FREQUENCY, "decayed frequency"),
        decoded(material, BELADY, "Belady", batch=4, steps=40),
        decoded(material, LRU, "LRU", throttle_gb_per_s=5.0),
        decoded(material, LRU, "LRU", size=SMALL_BYTES, batch=4, steps=30),
        decoded(material, STATIC, "static"),
        decoded(material, BACKGROUND, "background", batch=4, steps=30),
        decoded(material, BACKGROUND, "background", warm=20, steps=30),
        decoded(material, PREFETCH, "perfect prefetch", warm=5),
        decoded(material, STATIC, "all on the device", places=LAYERS * EXPERTS),
        decoded(material, STATIC, "all on the device", places=LAYERS * EXPERTS, batch=4, steps=30),
    ]
    found = compare_record(made_record(material, rows), "a.json", material)
    assert len(found.rows) == len(rows)
    for row in found.rows:
        assert row.left_out is None
        for figure in (row.tpot_s, row.hit_rate, row.moved, row.moved_bytes):
            assert figure is not None
            assert figure.error == pytest.approx(0, abs=1e-3), row
    assert found.tpot is not None
    assert (found.tpot.rows, found.tpot.within) == (12, 12)
    # The null errs, so that what was predicted says something.
    assert found.mean is not None
    assert found.mean.largest > 0.1


def test_a_wrong_bandwidth_is_seen_where_the_link_is_the_bound(material: Material) -> None:
    rows = [decoded(material, LRU, "LRU"), decoded(material, STATIC, "static")]
    slow = micro_rows(CopyLine(LINE.latency_s, LINE.bytes_per_s / 2))
    found = compare_record(made_record(material, rows, slow), "a.json", material)
    errors = {row.row: row.tpot_s.error for row in found.rows if row.tpot_s is not None}
    assert errors["LRU"] is not None
    assert errors["LRU"] > 0.3
    assert errors["static"] == pytest.approx(0, abs=1e-3)
    assert found.tpot is not None
    assert (found.tpot.within, found.tpot.largest, found.tpot.mean) == (
        1,
        errors["LRU"],
        pytest.approx(errors["LRU"] / 2),
    )


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        (MicroKind.EXPERT, "no expert with format mxfp4, kernel torch, launched eager, bytes 5000000"),
        (MicroKind.FIXED_PART, "no fixed_part with part to_gate, launched eager"),
        (MicroKind.COPY_TO_DEVICE, "no copy_to_device with memory pinned, streams 1"),
        (MicroKind.GATE_ROUND_TRIP, "no gate_round_trip"),
        (MicroKind.DECISION, "no decision with policy recency"),
        (MicroKind.LAYER_OVERHEAD, "no layer_overhead with runtime offloaded, missing 0, top_k 2, needed 2"),
        (MicroKind.HOST_EXPERT, "no host_expert with format mxfp4, bytes 5000000"),
        (MicroKind.HOST_EXPERT_WHILE_COPYING, "no host_expert_while_copying with what expert"),
    ],
)
def test_a_row_whose_constants_were_not_measured_says_what_is_missing(
    material: Material, kind: MicroKind, named: str
) -> None:
    rows = [decoded(material, STATIC, "static")]
    fewer = tuple(micro for micro in micro_rows() if micro.kind is not kind)
    found = compare_record(made_record(material, rows, fewer), "a.json", material)
    assert found.rows[0].tpot_s is None
    assert named in str(found.rows[0].left_out)
    assert (found.tpot, found.mean) == (None, None)


def test_a_batch_or_context_beyond_what_was_measured_is_not_guessed(material: Material) -> None:
    rows = [decoded(material, LRU, "LRU", batch=4, steps=30)]
    few = tuple(micro for micro in micro_rows() if micro.kind is not MicroKind.EXPERT or micro.settings["tokens"] == 1)
    found = compare_record(made_record(material, rows, few), "a.json", material)
    assert "expert: tokens: 2 is needed, 1 is measured" in str(found.rows[0].left_out)
    short = tuple(
        micro for micro in micro_rows() if micro.kind is not MicroKind.FIXED_PART or micro.settings["context"] <= 256
    )
    found = compare_record(made_record(material, rows, short), "a.json", material)
    assert "context: a step looks at 3" in str(found.rows[0].left_out)


def test_another_trace_or_predictor_is_refused(material: Material) -> None:
    record = made_record(material, [decoded(material, LRU, "LRU")])
    with pytest.raises(ForestageError, match=r"a\.json: trace: 480 tokens of made\.safetensors were decoded"):
        compare_record(record, "a.json", made_material(routed(1)))
    other = replace(material, digests={**material.digests, "uses": "1" * 64})
    with pytest.raises(ForestageError, match=r"a\.json: predictors: uses is another than the one measured with"):
        compare_record(record, "a.json", other)
    with pytest.raises(ForestageError, match=r"predictors: next-use is not given"):
        compare_record(made_record(material, record.decode, predictors={"next-use": "2" * 64}), "a.json", material)
    with pytest.raises(ForestageError, match="no row was decoded"):
        compare_record(made_record(material, []), "a.json", material)
