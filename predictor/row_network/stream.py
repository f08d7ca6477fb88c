"""A row network's streaming form at several lookaheads: one compiled call a gate, for who decides while a model runs.

The answers are those of `twin.RowNetwork`, one at each lookahead. Its sums are those of all of them: what a gate adds
does not depend on who asks. Only adapted biases are kept for each lookahead.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from catalog.compiled import njit
from predictor.row_network import kernels
from predictor.row_network.kernels import I16, I32, I64, Bools, Rules, State, Tables
from predictor.row_network.twin import RowNetwork


class Asked(NamedTuple):
    """What a stream is asked.

    Attributes:
        lookaheads: i64 ``[A]``, ascending.
        firsts: i64 ``[A]``: the first target that each is asked about; nearer ones are never known so far ahead.
        scores: i32 ``[A, layers, questions · experts]``, the latest answers.
    """

    lookaheads: I64
    firsts: I64
    scores: I32


class Parts(NamedTuple):
    """Everything that a call of a stream reads and changes."""

    rules: Rules
    tables: Tables
    state: State
    asked: Asked


def stream_parts(network: RowNetwork, lookaheads: Sequence[int], firsts: Sequence[int]) -> Parts:
    """A new sequence's parts.

    Args:
        network: whose rules and tables.
        lookaheads: ascending.
        firsts: as `Asked`.

    Raises:
        ForestageError: for a lookahead that the network does not serve.
    """
    for lookahead in lookaheads:
        network.config.check_serves(lookahead, "row network")
    shape = (len(lookaheads), network.layers, network.config.questions * network.experts)
    parts = Parts(
        network.rules,
        network.compiled_tables,
        network.new_state(len(lookaheads)),
        Asked(np.array(lookaheads, np.int64), np.array(firsts, np.int64), np.zeros(shape, np.int32)),
    )
    kernels.start_sequence(parts.state)
    return parts


@njit()
def begin(parts: Parts, token: int, identity: int) -> None:
    """A token begins, as `kernels.begin_token`: score the targets that no gate of it precedes."""
    rules, tables, state, asked = parts
    kernels.begin_token(rules, tables, state, token, identity)
    for index in range(len(asked.lookaheads)):
        lookahead = asked.lookaheads[index]
        for target in range(asked.firsts[index], min(lookahead, len(state.now))):
            kernels.score_layer(rules, tables, state, index, target, lookahead, asked.scores[index, target])


@njit()
def gate(parts: Parts, layer: int, ids: I16, recorded: bool, scored: bool) -> None:
    """The gate of ``layer`` chose ``ids``: adapt, take note, and score; the last layer ends the token.

    Args:
        parts: of the stream.
        layer, ids, recorded: as `kernels.observe`.
        scored: whether anybody asks; otherwise only what adapts is scored.

    Raises:
        ValueError: for ids that are not ``top_k`` experts: they index memory.
    """
    rules, tables, state, asked = parts
    if len(ids) != state.last_ids.shape[1]:
        raise ValueError("a gate's choice has not the model's number of experts")
    for expert in ids:
        if recorded and not 0 <= expert < tables.rows.shape[2]:
            raise ValueError("a gate's choice names an expert that the model has not")
    layers = len(state.now)
    for index in range(len(asked.lookaheads)):
        if asked.lookaheads[index] and layer >= asked.firsts[index]:
            kernels.adapt(
                rules, tables, state, index, layer, asked.lookaheads[index], ids, recorded, asked.scores[index, layer]
            )
    kernels.observe(rules, tables, state, layer, ids, recorded)
    for index in range(len(asked.lookaheads)):
        target = layer + asked.lookaheads[index]
        if target < layers and (scored or tables.adaptations[target]):
            kernels.score_layer(
                rules, tables, state, index, target, asked.lookaheads[index], asked.scores[index, target]
            )
    if layer == layers - 1:
        kernels.end_token(rules, state)


@njit()
def tokens(parts: Parts, ids: I16, recorded: Bools, identities: I64, rows: I64) -> None:
    """Whole tokens, one after the other, of which nobody asks but about the last.

    Args:
        parts: of the stream.
        ids: i16 ``[tokens, layers, top_k]``.
        recorded: bool ``[tokens, layers]``.
        identities, rows: i64 ``[tokens]``, as ``token`` and ``identity`` of `begin`.
    """
    for token in range(len(ids)):
        begin(parts, identities[token], rows[token])
        for layer in range(ids.shape[1]):
            gate(parts, layer, ids[token, layer], recorded[token, layer], token == len(ids) - 1)
