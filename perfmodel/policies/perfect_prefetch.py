"""Prefetching by an oracle, with the same cache, link and lookahead.

It bounds predictors that issue only what the target layer needs. A predictor that issues more can be faster: a wrong
prefetch that the link had time for may serve a later token.
"""

from dataclasses import replace

from perfmodel.policies.base import System
from perfmodel.policies.st_moe_prefetch import StMoePrefetch


class PerfectPrefetch(StMoePrefetch):
    """`StMoePrefetch` with issue sets that name exactly what each gate will ask for, and no prefetch-engine latency.

    ``system.issue_sets`` must be ``predictor.issue.perfect_issue_sets`` of the trace; the issue limit is ignored.
    """

    name = "perfect_prefetch"

    def __init__(self, system: System) -> None:
        free = system.config.model_copy(update={"issue_limit": None, "engine_cycles": 0})
        super().__init__(replace(system, config=free, engine_cycles=None))
