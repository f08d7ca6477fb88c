"""A next-use predictor's chances as values.

Of one running sequence the value is the sum of its chances over the horizons. Of several at once it is, for each
horizon, the chance that any of them wants the expert, as if they chose independently: ``1 − Π(1 − p)``. Where many run,
nearly every expert is wanted by one of them within the farther horizons, and all would be worth the same. So shorter
times are asked about, about 1/√n of a horizon for n sequences: ``1 − (Π(1 − p))^(1/2^k)`` with ``k = ⌊log₄ n⌋``, n
being the most that run at once. (Under a constant rate the m-th root stands for 1/m of the time. √n was chosen on
training tokens of gpt-oss-20b, in batches of 4 and 16, among n^0, n^¼, n^½, n^¾ and n; the sum of all chances was
worse.)

Products and square roots are those of IEEE 754, rounded in every step and the same on every machine.
"""

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit
from catalog.errors import ForestageError
from catalog.progress import Progress
from predictor.base import Scores
from predictor.foresight.arrays import Values
from predictor.foresight.parts import Reach, reach_of, step_parts
from predictor.next_use.predictor import NextUsePredictor
from predictor.row_network.integers import CERTAIN, CHANCE_SHIFT
from predictor.row_network.kernels import distance_of
from staging.steps import Steps
from traces import RoutingTrace
from traces.mapping import new_array, release

CHUNK_TOKENS = 512
"""Tokens scored at once: 50 MB of scores for 24 layers of 32 experts and four horizons."""


def learned_values(
    predictor: NextUsePredictor,
    trace: RoutingTrace,
    steps: Steps,
    *,
    progress: Progress = lambda done, total: None,
) -> Values:
    """The values of the module's description, ``CERTAIN`` for each horizon within which a use is certain.

    Each sequence counts with its latest token's row, until it runs again or has ended; so a sequence that does not take
    part in a step keeps what is known of it.

    Raises:
        ForestageError: for a predictor that is asked before the layer's own gate, or does not fit the trace, or steps
            that are not the trace's.
    """
    if predictor.lookahead:
        raise ForestageError(
            f"next-use predictor: lookahead {predictor.lookahead}: values are told at a layer's own gate; "
            "give one of lookahead 0"
        )
    predictor.check_trace(trace)
    reach = reach_of(trace, steps)
    make = _of_several if reach.live > 1 else _of_one
    rows = make(predictor, trace, len(steps), reach, progress)
    return Values(rows=rows, at_step_end=steps.sequential, most=predictor.config.questions * CERTAIN)


def _of_one(
    predictor: NextUsePredictor, trace: RoutingTrace, steps: int, reach: Reach, progress: Progress
) -> NDArray[np.int32]:
    rows = new_array((steps, trace.layers, trace.experts), np.int32)
    for first, found in predictor.priority_chunks(trace, chunk_tokens=CHUNK_TOKENS):
        last = first + len(found)
        _put(found, reach.first[first:last], reach.end[first:last], rows)
        release(rows)
        progress(last, trace.tokens)
    return rows


@njit()
def _put(found: NDArray[np.int32], firsts: NDArray[np.int64], ends: NDArray[np.int64], rows: NDArray[np.int32]) -> None:
    for token in range(found.shape[0]):
        for step in range(firsts[token], ends[token]):
            rows[step] = found[token]


def _of_several(
    predictor: NextUsePredictor, trace: RoutingTrace, steps: int, reach: Reach, progress: Progress
) -> NDArray[np.int32]:
    shape = (trace.layers, predictor.config.questions, trace.experts)
    unwanted = new_array((steps, *shape), np.float32)
    for first, last in step_parts(steps, shape[0] * shape[1] * shape[2]):
        unwanted[first:last] = 1
        release(unwanted)
    chances, nearest = predictor.network.tables.chances, predictor.config.nearest
    for first, scores in predictor.score_chunks(trace, chunk_tokens=CHUNK_TOKENS):
        last = first + len(scores)
        _multiply(scores, chances, nearest, reach.first[first:last], reach.end[first:last], unwanted)
        release(unwanted)
        progress(last, trace.tokens)
    rows = new_array((steps, trace.layers, trace.experts), np.int32)
    for first, last in step_parts(steps, shape[0] * shape[1] * shape[2]):
        _add_roots(unwanted[first:last], (reach.live.bit_length() - 1) // 2, rows[first:last])
        release(unwanted)
        release(rows)
    return rows


@njit()
def _multiply(
    scores: Scores,
    chances: NDArray[np.uint16],
    nearest: int,
    firsts: NDArray[np.int64],
    ends: NDArray[np.int64],
    unwanted: NDArray[np.float32],
) -> None:
    """Multiply ``unwanted`` f32 ``[steps, layers, questions, experts]`` by the chance of each token not to want it."""
    for token in range(scores.shape[0]):
        for layer in range(scores.shape[1]):
            table = chances[layer, distance_of(layer, 0, nearest)]
            for question in range(scores.shape[2]):
                for expert in range(scores.shape[3]):
                    chance = table[question, scores[token, layer, question, expert] >> CHANCE_SHIFT]
                    left = np.float32(CERTAIN - np.int64(chance)) / np.float32(CERTAIN)
                    for step in range(firsts[token], ends[token]):
                        unwanted[step, layer, question, expert] *= left


@njit()
def _add_roots(unwanted: NDArray[np.float32], roots: int, rows: NDArray[np.int32]) -> None:
    for step in range(unwanted.shape[0]):
        for layer in range(unwanted.shape[1]):
            for question in range(unwanted.shape[2]):
                for expert in range(unwanted.shape[3]):
                    left = np.float64(unwanted[step, layer, question, expert])
                    for _ in range(roots):
                        left = np.sqrt(left)
                    rows[step, layer, expert] += np.int32(CERTAIN * (1.0 - left) + 0.5)
