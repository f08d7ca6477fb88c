"""Whether workload, durations and plan fit each other: what both engines refuse."""

import numpy as np

from catalog.errors import ForestageError
from perfmodel.workload import Durations, Workload
from predictor.policies.plan import Plan


def check_fit(workload: Workload, durations: Durations, plan: Plan) -> None:
    """Refuse what no engine can run.

    Raises:
        ForestageError: naming what does not fit.
    """
    limits, shape = plan.limits, (workload.layers, workload.model_experts)
    if (limits.layers, limits.experts) != shape or limits.channels != 1:
        raise ForestageError(
            f"stager: {limits.layers} layers of {limits.experts} experts, {limits.channels} channels; give {shape[0]} "
            f"of {shape[1]}, and 1 channel, as the workload and the link have"
        )
    chunks = len(durations.chunk_ps) - 1
    if chunks < 1 or durations.chunk_ps[0] != 0 or (np.diff(durations.chunk_ps) < 1).any():
        raise ForestageError("chunk_ps: give 0 and then times that rise from chunk to chunk")
    if not (chunks - 1) * durations.chunk_bytes < durations.expert_bytes <= chunks * durations.chunk_bytes:
        raise ForestageError(
            f"chunk_ps: {chunks} chunks of {durations.chunk_bytes} bytes do not make {durations.expert_bytes} bytes"
        )
    if plan.missing.may_compute and (durations.host_free_rate[1:].min() < 1 or durations.host_groups < 1):
        raise ForestageError("host_free_rate, host_groups: what computes where experts lie needs rates of 1 or more")
