"""What a stager may be told: the checks of its commands' arguments, the same in every form."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from staging.stager.limits import FOREVER, StagerLimits

Experts = Sequence[int] | NDArray[np.integer[Any]]


def checked_keys(limits: StagerLimits, layer: int, experts: Experts) -> NDArray[np.int64]:
    """Keys i64 ``[len(experts)]``.

    Raises:
        ValueError: for a layer or an expert that the limits do not have.
    """
    ids = _integers("experts", experts)
    if not 0 <= layer < limits.layers or (len(ids) and not 0 <= ids.min() <= ids.max() < limits.experts):
        raise ValueError(f"layer {layer}, experts {ids.tolist()}: beyond the limits")
    return layer * limits.experts + ids


def distinct_keys(limits: StagerLimits, layer: int, experts: Experts) -> NDArray[np.int64]:
    """As ``checked_keys``.

    Raises:
        ValueError: also for an expert named twice.
    """
    keys = checked_keys(limits, layer, experts)
    if len(set(keys.tolist())) < len(keys):
        raise ValueError(f"experts of layer {layer}: one is named twice")
    return keys


def checked_values(limits: StagerLimits, layer: int, values: Experts) -> NDArray[np.int64]:
    """Values i64 ``[experts]``.

    Raises:
        ValueError: for a layer that there is not, values of another shape, or outside ``value_bits``.
    """
    checked_keys(limits, layer, ())
    told = _integers("values", values)
    limit = 1 << (limits.value_bits - 1)
    if told.shape != (limits.experts,) or told.min() < -limit or told.max() >= limit:
        raise ValueError(f"values: give {limits.experts} of {limits.value_bits} bits")
    return told


def checked_chances(limits: StagerLimits, count: int, chances: Experts) -> NDArray[np.int64]:
    """Chances i64 ``[count]``.

    Raises:
        ValueError: for another number, or outside ``value_bits`` without a sign.
    """
    told = _integers("chances", chances)
    if told.shape != (count,) or (count and (told.min() < 0 or told.max() >> limits.value_bits)):
        raise ValueError(f"chances: give {count} of {limits.value_bits} bits, 0 or more")
    return told


def check_deadline(limits: StagerLimits, deadline: int) -> None:
    """Raise unless ``deadline`` is ``FOREVER``, or one that the limits' bits hold beside it.

    Raises:
        ValueError: naming it.
    """
    most = (1 << limits.deadline_bits) - 2
    if not 0 <= deadline <= most and deadline != FOREVER:
        raise ValueError(f"deadline {deadline}: give 0 to {most}, or {FOREVER}, which never passes")


def _integers(name: str, given: Experts) -> NDArray[np.int64]:
    """I64, of what is whole already: a fraction is not cut off, and none wraps.

    Raises:
        ValueError: for another type, or a number beyond i64.
    """
    told = np.asarray(given)
    if told.size and (told.dtype.kind not in "iu" or told.max() > np.iinfo(np.int64).max):
        raise ValueError(f"{name}: {told.dtype}; give integers of 64 bits with a sign")
    return told.astype(np.int64)
