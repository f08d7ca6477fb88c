"""The two forms of the stager, as the runtime reads them beyond their commands."""

import numpy as np
from numpy.typing import NDArray

from staging.stager.compiled.stager import CompiledStager
from staging.stager.twin import Stager

AnyStager = Stager | CompiledStager
"""The specification, or the compiled form, which is as quick as a runtime needs it. Both decide the same."""


def place_of(stager: AnyStager, key: int) -> int:
    """The place that ``key`` holds; ``NO_PLACE``: none."""
    if isinstance(stager, Stager):
        return int(stager.directory.place[key])
    return int(stager.state.keys[key]["place"])


def worth_of(stager: AnyStager, keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """What ``keys`` are worth now, as the stager compares them."""
    if isinstance(stager, Stager):
        return np.asarray(stager.directory.worth(keys), np.int64)
    of = stager.state.keys[keys]
    return np.asarray(of["value"] + np.where(of["deadline"] > stager.state.numbers["now"], of["chance"], 0), np.int64)
