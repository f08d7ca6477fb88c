"""A head's program, run in plain integers from the words of its memories, gives the scores of the twin."""

from typing import Any

import numpy as np
import pytest

from catalog.errors import ForestageError
from predictor.next_layer.recipes import RECIPES
from predictor.next_use.recipes import WITHOUT_IDENTITY
from predictor.row_network import kernels
from predictor.row_network.kernels import UNKNOWN
from predictor.row_network.limits import HeadLimits, NetLimits
from predictor.row_network.program import HeadProgram, head_program
from predictor.row_network.sources import LONGEST, MATCHED, sources
from predictor.row_network.twin import RowNetwork
from tests.learned_samples import identified_trace, random_next_use, random_predictor
from tests.predictor.row_network.program_interpreter import HeadInterpreter
from traces import RoutingTrace


def program_of(network: RowNetwork, lanes: int = 64) -> HeadProgram:
    return head_program(
        network.tables, network.config, top_k=network.top_k, ranked=network.ranked, distance=network.lookahead,
        lanes=lanes, origin="test",
    )  # fmt: skip


class Text:
    """The memory of the text of one sequence: which records a token reads."""

    def __init__(self, network: RowNetwork) -> None:
        self.network, rules = network, network.rules
        state = network.new_state(1)
        kernels.start_sequence(state)
        self.tokens, self.keys, self.places = state.tokens, state.keys, state.places
        self.log: list[list[np.ndarray | None]] = []
        matched = [source for source in sources(network.config) if source.age == MATCHED]
        afters = [
            after
            for source in matched
            if source.index == LONGEST
            for after in range(source.first, source.last + 1)
        ]  # fmt: skip
        self.afters = sorted(set(afters))
        self.lengths = rules.lengths

    def begin(self) -> None:
        self.log.append([None] * self.network.layers)

    def read(self, token: int) -> list[tuple[int, int, np.ndarray]]:
        """(record, layer, ids) of what is read where ``token`` is this token's identity."""
        if not len(self.lengths):
            return []
        named = np.empty(len(self.lengths) + 1, np.int64)
        position = len(self.log) - 1
        kernels.look_up(self.lengths, self.tokens, self.keys, self.places, token, position, named)
        wanted = [(table, int(named[table])) for table in range(len(self.lengths)) if named[table] >= 0]
        if named[-1] >= 0:
            wanted += [(len(self.lengths) + after, int(named[-1]) + after) for after in self.afters]
        return [
            (record, layer, ids)
            for record, earlier in wanted
            if position - self.network.config.log_tokens < earlier < position
            for layer, ids in enumerate(self.log[earlier])
            if ids is not None
        ]


def scores_of(network: RowNetwork, trace: RoutingTrace, lanes: int = 64) -> np.ndarray:
    """Scores ``[tokens, layers, answers]`` of the program."""
    interpreter = HeadInterpreter(program_of(network, lanes))
    found = np.zeros((trace.tokens, trace.layers, network.config.questions * trace.experts), np.int64)
    starts = set(np.asarray(trace.sequence_offsets[:-1]).tolist())
    recorded = trace.recorded()
    config, rows = network.config, network.tables.identity_rows
    hashes = np.full(trace.tokens, UNKNOWN) if trace.token_hash is None else np.asarray(trace.token_hash, np.int64)
    identities = network.identity_index(hashes)
    text, begun, held = Text(network), 0, [None] * trace.layers

    def read(token: int) -> None:
        for record, layer, ids in text.read(token):
            interpreter.record(record, layer, ids)

    for token in range(trace.tokens):
        if token in starts:
            interpreter.start_sequence()
            text, begun, held = Text(network), token, [None] * trace.layers
        text.begin()
        for age in range(min(config.identities, token - begun + 1)):
            for layer in range(trace.layers):
                interpreter.identity(layer, age, rows[identities[token - age], age, layer])
        if not network.rules.by_routing:
            read(int(hashes[token]))
        for target in range(min(network.lookahead, trace.layers)):
            found[token, target] = interpreter.scores(target, interpreter.asked(target))
        for layer in range(trace.layers):
            ids = np.asarray(trace.expert_ids[token, layer])
            if network.lookahead and recorded[token, layer]:
                interpreter.adapt(layer, ids, interpreter.chances(layer, found[token, layer]))
            if layer == 0 and network.rules.by_routing:
                read(int(kernels.routing_token(ids.astype(np.int16), bool(recorded[token, 0]))))
            if recorded[token, layer]:
                held[layer] = ids
                text.log[-1][layer] = ids
            effective = held[layer] if held[layer] is not None else np.zeros(trace.top_k, int)
            shown = interpreter.gate(
                layer, effective, recorded=bool(recorded[token, layer]), held=held[layer] is not None
            )
            if shown is not None:
                target = layer + network.lookahead
                found[token, target] = interpreter.scores(target, shown)
        interpreter.end_token()
    return found


KINDS: dict[str, dict[str, Any]] = {
    "small": {},
    "no past": {"previous": (), "decays": (), "ngram_tables": (), "identity_rows": 0, "identities": 0},
    "only past": {"layers_back": 0, "decays": ((2, 0), (12, 3)), "previous": ((0, 0), (2, 3), (1, 0))},
    "routing": {"identity_rows": 0, "identities": 0, "ngram_by": "routing"},
    "far": {"nearest": 2, "farthest": 3, "layers_back": 1},
    "whole": {"hidden": 70, "decays": ((3, 1), (1, 0), (2, 2))},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("unrecorded", [0.0, 0.3])
def test_a_next_layer_program_gives_the_twins_scores(kind: str, unrecorded: float) -> None:
    lookahead = KINDS[kind].get("farthest", 1)
    network = random_predictor(lookahead=lookahead, seed=5, **KINDS[kind]).network
    trace = identified_trace(lengths=(14, 1, 17), layers=5, experts=9, top_k=3, seed=3, unrecorded=unrecorded)
    expected = np.concatenate([scores for _, scores in network.score_chunks(trace)])
    assert len(np.unique(expected)) > 20
    np.testing.assert_array_equal(scores_of(network, trace, lanes=16), expected)


@pytest.mark.parametrize("distance", [1, 2, 4])
def test_one_network_has_a_program_for_every_distance_it_serves(distance: int) -> None:
    network = random_predictor(lookahead=distance, nearest=1, farthest=4, layers_back=3, seed=1).network
    trace = identified_trace(lengths=(9, 9), layers=5, experts=9, top_k=3, seed=3)
    expected = np.concatenate([scores for _, scores in network.score_chunks(trace)])
    np.testing.assert_array_equal(scores_of(network, trace), expected)


@pytest.mark.parametrize("kind", [{}, {"at_match": True}, {**WITHOUT_IDENTITY, "hidden": 20}])
def test_a_next_use_program_gives_the_twins_scores(kind: dict[str, Any]) -> None:
    network = random_next_use(np.random.default_rng(4), layers=6, experts=8, top_k=2, ranked=True, **kind).network
    trace = identified_trace(lengths=(15, 15), layers=6, experts=8, top_k=2, seed=8, unrecorded=0.1)
    expected = np.concatenate([scores for _, scores in network.score_chunks(trace)])
    np.testing.assert_array_equal(scores_of(network, trace, lanes=8), expected)


def test_the_deployed_recipe_fits_the_default_net() -> None:
    config = RECIPES["deployed"].predictor.model_dump()
    network = random_predictor(layers=24, experts=32, top_k=4, **{**config, "identity_rows": 3}).network
    program = program_of(network, lanes=128)
    program.check_limits(NetLimits(), 0, origin="test")
    assert program.settings.words == 1
    assert max(map(len, program.gates)) == 10
    with pytest.raises(ForestageError, match="test: layers is 24, the generated net holds at most 16; generate it"):
        program.check_limits(NetLimits(layers=16), 0, origin="test")
    with pytest.raises(ForestageError, match="test: words of 128 lanes, the generated net's have 64; make the"):
        program.check_limits(NetLimits(lanes=64), 0, origin="test")
    with pytest.raises(ForestageError, match="words of rows is 9440, the generated net holds at most 9439"):
        program.check_limits(NetLimits(next_layer=HeadLimits(row_words=9439)), 0, origin="test")


def test_what_the_words_cannot_hold_is_refused() -> None:
    network = random_predictor(decays=tuple((shift, 0) for shift in range(1, 10)), top_k=3).network
    with pytest.raises(ForestageError, match="test: decays is 9, the generated net holds at most 8"):
        program_of(network)


@pytest.mark.parametrize(
    ("kind", "said"), [({"lookahead": 2}, "asked 2 layers ahead"), ({"identity_rows": 4, "identities": 1}, "identity")]
)
def test_what_the_net_does_not_ask_of_next_use_is_refused(kind: dict[str, Any], said: str) -> None:
    network = random_next_use(np.random.default_rng(4), layers=6, experts=8, top_k=2, **kind).network
    with pytest.raises(ForestageError, match=f"test: next-use .*{said}"):
        program_of(network).check_limits(NetLimits(lanes=64), 1, origin="test")
