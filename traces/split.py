"""The one split of a trace into training and test sequences."""

import numpy as np
import numpy.typing as npt

from traces.trace import RoutingTrace

TEST_SHARE = 0.2


def split(trace: RoutingTrace, seed: int = 0) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Sequence indices (training, test), each ascending: by sequence, stratified by dataset, 80/20.

    The rule: one generator ``numpy.random.Generator(numpy.random.PCG64(seed))``; the datasets in order of first
    appearance; the n sequences of a dataset, ascending, are permuted with ``generator.permutation(n)``; the first
    ``max(1, floor(0.2 · n + 0.5))`` of the permutation are test if n ≥ 2, none if n = 1; the others are training.
    A trace of a single sequence has an empty test side.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    datasets = np.asarray(trace.datasets, dtype=object)
    test: list[int] = []
    for dataset in dict.fromkeys(trace.datasets):
        members = np.flatnonzero(datasets == dataset)
        permuted = members[generator.permutation(len(members))]
        count = max(1, int(np.floor(TEST_SHARE * len(members) + 0.5))) if len(members) >= 2 else 0
        test.extend(permuted[:count].tolist())
    is_test = np.zeros(trace.sequences, dtype=np.bool_)
    is_test[test] = True
    return np.flatnonzero(~is_test), np.flatnonzero(is_test)
