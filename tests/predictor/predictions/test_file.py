"""Files of predictions: written, read back, laid on a trace, and refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from catalog.errors import ForestageError
from predictor.measure.evaluate import evaluate
from predictor.predictions.digest import trace_digest
from predictor.predictions.file import open_predictions
from predictor.predictions.scorer import lay
from predictor.predictions.writer import PredictionsWriter, write_predictions
from tests.st_moe_samples import routing_trace
from traces.safetensors_file import write_tensors

CONTAINERS = ("npz", "safetensors", "parquet")
LENGTHS = (4, 5, 6, 7, 8, 9)
TRACE = routing_trace(lengths=LENGTHS)
ROWS = (TRACE.tokens, TRACE.layers)


def ranked_ids(width: int = 5, seed: int = 0) -> np.ndarray:
    """Random rankings; nothing in layer 0."""
    ids = np.random.default_rng(seed).random((*ROWS, TRACE.experts)).argsort(axis=-1)[..., :width].astype(np.int16)
    ids[:, 0] = -1
    return ids


def random_scores(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(*ROWS, TRACE.experts)).astype(np.float32)


def scored(path: Path) -> np.ndarray:
    """What the metrics are handed for the whole trace."""
    scorer = lay(open_predictions(path), TRACE).scorer(np.arange(TRACE.sequences))
    return np.concatenate([scores for _, scores in scorer.score_chunks(TRACE, chunk_tokens=7)])


def order(scores: np.ndarray, limit: int) -> np.ndarray:
    """Best first, −1 where nothing is issued."""
    best = np.argsort(-scores, axis=-1, kind="stable")[..., :limit]
    return np.where(np.take_along_axis(scores, best, axis=-1) > 0, best, -1)


def test_a_file_is_what_its_ending_says(tmp_path):
    """Each is read by the library of its format, not only by this project, which goes by the first bytes."""
    ids = ranked_ids()
    for container in CONTAINERS:
        write_predictions(tmp_path / f"p.{container}", ids=ids, lookahead=1, source="somebody", trace=TRACE)
    with np.load(tmp_path / "p.npz") as archive:
        np.testing.assert_array_equal(archive["ids"], ids)
        assert (archive["lookahead"][()], archive["source"][()]) == (1, "somebody")
    np.testing.assert_array_equal(load_file(tmp_path / "p.safetensors")["ids"], ids)
    rows = pq.read_table(tmp_path / "p.parquet")["ids"].to_pylist()  # one a token and layer
    assert rows == [[expert for expert in row if expert >= 0] for row in ids.reshape(-1, ids.shape[-1]).tolist()]


@pytest.mark.parametrize("container", CONTAINERS)
def test_ids_come_back_in_every_container(tmp_path, container):
    ids = ranked_ids()
    ids[3, 2, 2:] = -1
    ids[4, 1] = -1
    path = tmp_path / f"p.{container}"
    write_predictions(path, ids=ids, lookahead=1, source="somebody", trace=TRACE)
    np.testing.assert_array_equal(order(scored(path), 5), ids)
    opened = open_predictions(path)
    assert opened.listed == 5
    assert (opened.header.lookahead, opened.header.source, opened.header.model) == (1, "somebody", "test")
    assert opened.header.trace_digest == trace_digest(TRACE)


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, np.int16])
def test_scores_come_back_in_every_container(tmp_path, container, dtype):
    scores = (100 * random_scores()).astype(dtype)
    path = tmp_path / f"p.{container}"
    write_predictions(path, scores=scores, lookahead=2, source="somebody", trace=TRACE)
    found = order(scored(path), TRACE.experts)
    assert (found[:, :2] == -1).all()  # below the lookahead nothing is predicted
    np.testing.assert_array_equal(found[:, 2:], np.argsort(-scores[:, 2:].astype(float), axis=-1, kind="stable"))


def test_unsigned_scores_and_the_least_integer_are_ordered(tmp_path):
    for dtype in (np.uint8, np.int8, np.int64):
        scores = np.zeros((*ROWS, TRACE.experts), dtype)
        scores[..., 3] = np.iinfo(dtype).max
        scores[..., 5] = np.iinfo(dtype).min
        if dtype != np.uint8:
            scores[..., 0] = -1
        write_predictions(tmp_path / "p.npz", scores=scores, lookahead=1, source="s", trace=TRACE)
        found = order(scored(tmp_path / "p.npz"), TRACE.experts)[0, 1].tolist()
        assert found[0] == 3
        assert found[-1] == (15 if dtype == np.uint8 else 5)


def test_ties_go_to_the_smaller_id_and_the_minimum_is_not_rounded(tmp_path):
    scores = np.zeros((*ROWS, TRACE.experts), np.float16)
    scores[..., [9, 4]] = 1
    scores[..., 7] = 0.1  # as f16 a little less
    for minimum, expected in ((0.5, [4, 9]), (0.1, [4, 9]), (0.09, [4, 9, 7])):
        write_predictions(
            tmp_path / "p.npz", scores=scores, lookahead=1, source="s", trace=TRACE, minimum_score=minimum
        )
        found = order(scored(tmp_path / "p.npz"), 4)[0, 1].tolist()
        assert [expert for expert in found if expert >= 0] == expected


@pytest.mark.parametrize("container", CONTAINERS)
def test_predicted_says_where_scores_mean_anything(tmp_path, container):
    scores = random_scores()
    predicted = np.ones(ROWS, np.bool_)
    predicted[5, 2] = False
    scores[5, 2] = np.nan
    path = tmp_path / f"p.{container}"
    write_predictions(path, scores=scores, predicted=predicted, lookahead=1, source="s", trace=TRACE)
    found = order(scored(path), 1)
    assert found[5, 2].tolist() == [-1]
    assert (np.delete(found.reshape(-1), 5 * TRACE.layers + 2) >= 0).all()


def test_rows_in_pieces_make_the_same_file(tmp_path):
    ids = ranked_ids()
    write_predictions(tmp_path / "whole.safetensors", ids=ids, lookahead=1, source="s", trace=TRACE)
    with PredictionsWriter(tmp_path / "pieces.safetensors", lookahead=1, source="s") as writer:
        for first in range(0, len(ids), 7):
            writer.append(ids=ids[first : first + 7])
        assert writer.rows == len(ids)
        writer.facts["trace"] = TRACE  # known at the end of the run alone
    assert (tmp_path / "pieces.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def write_in_pieces(path: Path, ids: np.ndarray, error: BaseException | None = None) -> None:
    with PredictionsWriter(path, lookahead=1, source="s", trace=TRACE) as writer:
        writer.append(ids=ids)
        if error is not None:
            raise error


def test_a_writer_that_fails_leaves_nothing(tmp_path):
    bad = ranked_ids()
    bad[2, 1, 4] = bad[2, 1, 0]
    with pytest.raises(ForestageError, match=r"ids\[2, 1\] .*an expert is listed twice"):
        write_in_pieces(tmp_path / "p.npz", bad)
    with pytest.raises(KeyboardInterrupt):
        write_in_pieces(tmp_path / "p.npz", ranked_ids(), KeyboardInterrupt())
    with pytest.raises(ForestageError, match=r"predictions are written as \.npz, \.safetensors, \.parquet"):
        write_in_pieces(tmp_path / "p.json", ranked_ids())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_archive_of_numpy_s_is_read_compressed_or_not(tmp_path, save):
    ids = ranked_ids()
    path = tmp_path / "p.npz"
    save(path, ids=np.asfortranarray(ids), token_hash=np.arange(len(ids)), lookahead=1, source="by hand")
    np.testing.assert_array_equal(order(scored(path), 5), ids)


def test_unsigned_ids_have_their_maximum_as_filler(tmp_path):
    ids = ranked_ids().astype(np.uint8)  # −1 becomes 255
    np.savez(tmp_path / "p.npz", ids=ids, lookahead=1, source="s")
    np.testing.assert_array_equal(order(scored(tmp_path / "p.npz"), 5), ranked_ids())


def test_tensors_of_the_library_s_are_read(tmp_path):
    ids = ranked_ids()
    save_file({"ids": ids}, tmp_path / "p.safetensors", {"lookahead": "1", "source": "library", "format": "pt"})
    np.testing.assert_array_equal(order(scored(tmp_path / "p.safetensors"), 5), ids)


def test_what_a_capture_writes_beside_its_trace_is_read(tmp_path):
    """u16 ids with 0xFFFF where nothing is ranked, and texts in the header; no keys, as the rows are the trace's."""
    ids = ranked_ids().astype(np.uint16)  # −1 becomes 0xFFFF
    facts = {
        "format": "forestage-predictions",
        "lookahead": "1",
        "source": "next gate",
        "model": "test",
        "experts": "16",
    }
    write_tensors(tmp_path / "t.early-gate-1.safetensors", {"ids": ids}, facts)
    np.testing.assert_array_equal(order(scored(tmp_path / "t.early-gate-1.safetensors"), 5), ranked_ids())


def test_tokens_may_come_in_any_order_and_in_part(tmp_path):
    ids = ranked_ids()
    mixed = np.random.default_rng(1).permutation(TRACE.tokens)
    names = {
        "token": {"token": mixed},
        "pairs": {"sequence": TRACE.sequence_index()[mixed], "position": TRACE.position[mixed]},
    }
    for keys in names.values():
        write_predictions(tmp_path / "p.parquet", ids=ids[mixed], lookahead=1, source="s", trace=TRACE, **keys)
        np.testing.assert_array_equal(order(scored(tmp_path / "p.parquet"), 5), ids)
    inside = TRACE.sequence_slice(2)
    part = {"sequence": TRACE.sequence_index()[inside], "position": TRACE.position[inside]}
    write_predictions(tmp_path / "p.npz", ids=ids[inside], lookahead=1, source="s", trace=TRACE, **part)
    laid = lay(open_predictions(tmp_path / "p.npz"), TRACE)
    assert laid.covers().tolist() == [False, False, True, False, False, False]
    with pytest.raises(ForestageError, match=r"has rows for 6 of the 11 tokens .* position 0 of sequence 1; add rows"):
        laid.scorer(np.array([2, 1]))


def table_rows(ids: np.ndarray, layer_map: tuple[int, ...]) -> dict[str, list]:
    """Columns as somebody writes them by hand: rows without a prediction left out, but for one of each token."""
    rows: dict[str, list] = {"sequence": [], "position": [], "layer": [], "ids": []}
    for token, sequence in enumerate(TRACE.sequence_index().tolist()):
        for column, layer in enumerate(layer_map):
            listed = [expert for expert in ids[token, column].tolist() if expert >= 0]
            if listed or column == 1:
                for name, value in zip(rows, (sequence, int(TRACE.position[token]), layer, listed), strict=True):
                    rows[name].append(value)
    return rows


def test_a_table_by_hand_names_the_model_s_layers(tmp_path):
    shifted = dataclasses.replace(TRACE, metadata=TRACE.metadata.model_copy(update={"layer_map": (1, 2, 5, 7)}))
    ids = ranked_ids(width=3)
    ids[7] = -1
    table = pa.table(table_rows(ids, (1, 2, 5, 7))).replace_schema_metadata({"lookahead": "1", "source": "a table"})
    pq.write_table(table, tmp_path / "p.parquet")
    laid = lay(open_predictions(tmp_path / "p.parquet"), shifted)
    scorer = laid.scorer(np.arange(TRACE.sequences))
    ((_, scores),) = scorer.score_chunks(shifted)
    np.testing.assert_array_equal(order(scores, 3), ids)
    with pytest.raises(ForestageError, match=r"layer 5 is no MoE layer that the trace recorded; .* 0…3"):
        lay(open_predictions(tmp_path / "p.parquet"), TRACE)


def test_columns_may_be_some_of_the_layers(tmp_path):
    ids = ranked_ids()
    write_predictions(tmp_path / "p.npz", ids=ids[:, 2:], lookahead=2, source="s", trace=TRACE, layer_map=(2, 3))
    found = order(scored(tmp_path / "p.npz"), 5)
    assert (found[:, :2] == -1).all()
    np.testing.assert_array_equal(found[:, 2:], ids[:, 2:])


def faulty(ids=None, scores=None, **changed):
    """A file by hand with a change."""
    content = {"lookahead": 1, "source": "s"}
    if scores is None:
        content["ids"] = ranked_ids() if ids is None else ids
    else:
        content["scores"] = scores
    return {name: value for name, value in {**content, **changed}.items() if value is not None}


def at(array: np.ndarray, index: tuple, value) -> np.ndarray:
    changed = array.copy()
    changed[index] = value
    return changed


FAULTS = [
    (faulty(lookahead=None), "lookahead: not stated"),
    (faulty(source=None), "source: not stated"),
    (faulty(lookahead=0), "lookahead: Input should be greater than or equal to 1"),
    (faulty(lookahead=4), "lookahead: 4 layers, but the trace has 4"),
    (faulty(lookahead=True), "lookahead: must be a whole number"),
    (faulty(lookahaed=1), "unknown key 'lookahaed'; the nearest known key is 'lookahead'"),
    (faulty(scores=random_scores(), ids_too=1, lookahead=1), "unknown key 'ids_too'"),
    ({**faulty(), "scores": random_scores()}, "both ids and scores"),
    (faulty(ids=ranked_ids().astype(np.float32)), "ids: float32 .*; expected integers"),
    (faulty(ids=ranked_ids()[:, :, 0]), r"ids: int16 \[39, 4\]; expected integers \[tokens, layers, m\]"),
    (faulty(ids=at(ranked_ids(), (6, 2, 1), 16)), r"ids\[6, 2\] \(row 6, layer 2\): .* in 0…15"),
    (faulty(ids=at(ranked_ids(), (6, 2, 1), -2)), r"ids\[6, 2\] .* or -1 for none"),
    (faulty(ids=at(ranked_ids(), (6, 2, 1), -1)), r"ids\[6, 2\] .*an id follows -1"),
    (faulty(ids=at(ranked_ids(), (6, 2, slice(2)), 9)), r"ids\[6, 2\] .*listed twice"),
    (faulty(scores=at(random_scores(), (5, 3, 2), np.nan)), r"scores\[5, 3\] .*not finite"),
    (faulty(scores=at(random_scores(), (5, 3, 2), -np.inf)), r"scores\[5, 3\] .*not finite"),
    (faulty(scores=at(random_scores(), (5, 3), 0.5)), r"scores\[5, 3\] .*all are 0.5, which ranks nothing"),
    (faulty(scores=random_scores()[..., :8]), "scores: 8 a layer, but the model has 16 experts"),
    (faulty(ids=ranked_ids()[:, 1:]), "3 layers, but the trace has 4; give every recorded layer"),
    (faulty(ids=ranked_ids()[1:]), "38 rows, but the trace has 39 tokens; name each row's token"),
    (faulty(experts=8), "experts: 8 a layer, but the trace has 16"),
    (faulty(trace_digest="0" * 64), "trace_digest: predictions of another trace"),
    (faulty(minimum_score=0.5), "minimum_score: is of scores"),
    (faulty(scores=random_scores(), own_accord=True), "own_accord: scores say how many"),
    (faulty(layer_map=[0, 1, 2]), "layer_map: 3 layers, but the ranking has 4 columns"),
    (faulty(layer_map=[0, 2, 1, 3]), "layer_map: .*; must ascend strictly"),
    (faulty(predicted=np.ones(ROWS, np.bool_)), "predicted: is of scores"),
    (faulty(position=TRACE.position), "position without sequence"),
    (faulty(position=TRACE.position, sequence=TRACE.sequence_index(), token=np.arange(39)), "by token and by"),
    (faulty(position=TRACE.position, sequence=TRACE.sequence_index() + 1), r"sequence\[30\]: 6 is not in 0…5"),
    (faulty(position=TRACE.position + 1, sequence=TRACE.sequence_index()), r"position\[3\]: .* has no token at"),
    (faulty(token=np.arange(39) + 1), r"token\[38\]: 39 is not in 0…38"),
    (faulty(token=np.arange(39) // 2), "rows 0 and 1 are both of token 0"),
    (faulty(token_hash=np.arange(39)[::-1].copy()), r"token_hash\[0\]: 38, but token 0 of the trace is 0"),
    ({"lookahead": 1, "source": "s"}, "no predictions: it has neither ids nor scores, but lookahead, source;"),
    ({}, "no predictions: it has neither ids nor scores, but nothing;"),
    (dict.fromkeys("hgfedcba", 1), "no predictions: it has neither ids nor scores, but a, b, c, d, e, f;"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "fault"), FAULTS)
def test_faults_are_named_with_their_file(tmp_path, content, fault):
    path = tmp_path / "p.npz"
    np.savez(path, **content)
    identified = dataclasses.replace(TRACE, token_hash=np.arange(TRACE.tokens, dtype=np.uint32))
    with pytest.raises(ForestageError, match=fault) as error:
        lay(open_predictions(path), identified)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_identities_are_compared_where_the_trace_has_them(tmp_path):
    identified = dataclasses.replace(TRACE, token_hash=np.arange(TRACE.tokens, dtype=np.uint32))
    np.savez(tmp_path / "p.npz", **faulty(token_hash=np.arange(TRACE.tokens)))
    assert lay(open_predictions(tmp_path / "p.npz"), identified).alignment.proof == "the identity of every token"
    assert lay(open_predictions(tmp_path / "p.npz"), TRACE).alignment.proof is None


def test_what_nothing_proves_is_told(tmp_path):
    np.savez(tmp_path / "p.npz", **faulty())
    notes = evaluate(TRACE, open_predictions(tmp_path / "p.npz"), issue=(4,)).notes
    assert any("nothing in it proves that its rows are this trace's tokens" in note for note in notes)


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_damaged_file_is_refused_in_one_line(tmp_path, container):
    path = tmp_path / f"p.{container}"
    write_predictions(path, ids=ranked_ids(), lookahead=1, source="s", trace=TRACE)
    whole = path.read_bytes()
    for kept in (0, 3, 9, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(ForestageError, match=r"p\.") as error:
            open_predictions(path)
        assert "\n" not in str(error.value)


def test_tables_by_hand_that_are_refused(tmp_path):
    rows = table_rows(ranked_ids(), (0, 1, 2, 3))
    stated = {"lookahead": "1", "source": "s"}
    twice = {name: [*values, values[0]] for name, values in rows.items()}
    for table, facts, fault in (
        (rows, {}, "lookahead: not stated"),
        (twice, stated, "are of one token and layer"),
        ({name: values for name, values in rows.items() if name != "position"}, stated, "a row names its token by"),
        ({**rows, "layers": rows["layer"]}, stated, "layers: unknown column"),
        ({**rows, "ids": [str(ids) for ids in rows["ids"]]}, stated, "ids: string; expected a list of numbers"),
        ({**rows, "layer": [-1, *rows["layer"][1:]]}, stated, "layer: row 0: -1; must not be negative"),
        ({**rows, "layer": [None, *rows["layer"][1:]]}, stated, "layer: 1 rows are null"),
        ({**rows, "ids": [[None], *rows["ids"][1:]]}, stated, "a list holds a null"),
        ({**rows, "ids": [[-1], *rows["ids"][1:]]}, stated, "every id must be an expert's"),
        (rows, {**stated, "limit": "2"}, "a row of 5, but the file states limit 2"),
    ):
        pq.write_table(pa.table(table).replace_schema_metadata(facts), tmp_path / "p.parquet")
        with pytest.raises(ForestageError, match=fault):
            lay(open_predictions(tmp_path / "p.parquet"), TRACE)


def test_the_digest_is_of_the_routing_and_not_of_its_dtype():
    wide = dataclasses.replace(TRACE, expert_ids=TRACE.expert_ids.astype(np.uint16))
    assert trace_digest(wide) == trace_digest(TRACE)
    gone = routing_trace(lengths=LENGTHS, unrecorded=0.3)
    ids = gone.expert_ids.astype(np.uint16)
    ids[~gone.recorded()] = 0xFFFF
    assert trace_digest(dataclasses.replace(gone, expert_ids=ids)) == trace_digest(gone)
    moved = dataclasses.replace(TRACE, position=TRACE.position + 1)
    other = routing_trace(seed=5, lengths=LENGTHS)
    assert len({trace_digest(trace) for trace in (TRACE, gone, moved, other)}) == 4


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_damaged_byte_is_refused_or_changes_nothing(tmp_path, container):
    path = tmp_path / f"p.{container}"
    write_predictions(path, ids=ranked_ids(), lookahead=1, source="s", trace=TRACE)
    whole, before = path.read_bytes(), scored(path)
    generator = np.random.default_rng(0)
    refused = 0
    for place in generator.integers(len(whole), size=60).tolist():
        damaged = bytearray(whole)
        damaged[place] ^= 1 << generator.integers(8)
        path.write_bytes(damaged)
        try:
            np.testing.assert_array_equal(scored(path), before)
        except ForestageError:
            refused += 1
    assert refused > 30


@pytest.mark.parametrize("container", ["npz", "safetensors"])
def test_ids_that_changed_places_are_noticed(tmp_path, container):
    """Damage that leaves a valid ranking: only a checksum tells."""
    ids, path = ranked_ids(width=16), tmp_path / f"p.{container}"  # more than a zip file reads ahead
    write_predictions(path, ids=ids, lookahead=1, source="s", trace=TRACE)
    changed = ids.copy()
    changed[5, 2, :2] = ids[5, 2, 1::-1]
    whole = path.read_bytes()
    assert whole.count(ids.tobytes()) == 1
    path.write_bytes(whole.replace(ids.tobytes(), changed.tobytes()))
    with pytest.raises(ForestageError, match="damaged"):
        open_predictions(path)
