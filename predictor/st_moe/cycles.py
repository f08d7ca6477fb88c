"""Cycles of the prefetch engine for every event of a trace, from the twin's latency formula, for models of a system."""

import numpy as np
from numpy.typing import NDArray

from predictor.issue import IssueSets
from predictor.st_moe.parameters import EngineConfiguration, EngineLimits
from predictor.st_moe.tables import OFF_CYCLES, event_cycles
from traces import RoutingTrace


def trace_cycles(
    limits: EngineLimits, configuration: EngineConfiguration, trace: RoutingTrace, issued: IssueSets
) -> NDArray[np.int64]:
    """i64 ``[tokens, layers]``: cycles from the acceptance of each event to the next that can be accepted.

    Args:
        limits: of the generated engine.
        configuration: of this run; ``lookahead`` and ``issue_limit`` are those of ``issued``.
        trace: whose events they are; a row that was not recorded is no event and takes ``OFF_CYCLES``.
        issued: ``predictor.issue.issue_sets`` of ST-MoE's tables on ``trace``, indexed by target layer.

    Raises:
        ForestageError: if ``issued`` was made for another lookahead or a smaller limit.
    """
    lookahead = configuration.lookahead
    issued.check_use(lookahead=lookahead, limit=configuration.issue_limit, origin="engine cycles")
    requests = (issued.experts[:, :, : configuration.issue_limit] >= 0).sum(axis=2)
    recorded = trace.recorded()
    # What an event costs depends on three things alone: does it predict, does it verify, how many requests it issues.
    table = np.array(
        [
            [
                [
                    event_cycles(limits, top_k=configuration.top_k, requests=n, predicts=predicts, verifies=verifies)
                    for n in range(configuration.issue_limit + 1)
                ]
                for verifies in (False, True)
            ]
            for predicts in (False, True)
        ],
        np.int64,
    )
    layers = np.arange(trace.layers)
    predicts = (layers + lookahead < trace.layers).astype(np.int64)
    issues = np.zeros((trace.tokens, trace.layers), np.int64)
    issues[:, : trace.layers - lookahead] = requests[:, lookahead:]
    verifies = np.zeros((trace.tokens, trace.layers), np.int64)
    verifies[:, lookahead:] = recorded[:, : trace.layers - lookahead]
    return np.where(recorded, table[predicts[None, :], verifies, issues], OFF_CYCLES)
