"""Which missing experts are fetched and which are computed where they lie, where either is allowed.

For each number of fetched experts, 0 … all, the end of the layer is estimated, with the link moving only what is
fetched and what computes (the host's processor, or the memory) slowed down while it does; the fewest with the least end
are fetched. Of the missing, the one that is moving already goes first, then those of most worth (of equals the first
that the gate named).
"""

import numpy as np
from numpy.typing import NDArray

from catalog.compiled import njit


@njit()
def fetched(
    tokens_of: NDArray[np.int64],
    worth: NDArray[np.int64],
    moving: int,
    link_free_ps: int,
    device_free_ps: int,
    transfer_ps: int,
    expert_ps: NDArray[np.int64],
    host_work: int,
    host_free_rate: NDArray[np.int64],
    host_shared_rate: NDArray[np.int64],
    host_groups: int,
    host_before_ps: int,
    host_after_ps: int,
    host_token_ps: int,
    chosen: NDArray[np.bool_],
) -> None:
    """Fill ``chosen`` bool ``[missing]``: which are fetched.

    Args:
        tokens_of, worth: i64 ``[missing]``, of each missing expert, in gate order.
        moving: the place in these of what the link moves; −1 where it is none of them.
        link_free_ps: from now until the link could begin another transfer; where ``moving`` is given, until it arrives.
        device_free_ps: from now until what is on the device has run.
        transfer_ps: one transfer.
        expert_ps, host_…: as in `perfmodel.workload.Durations`.
        chosen: the answer.
    """
    missing, most_tokens = len(tokens_of), 0
    for tokens in tokens_of:
        most_tokens = max(most_tokens, tokens)
    free_rate, shared_rate = host_free_rate[most_tokens], host_shared_rate[most_tokens]
    best, best_ps = 0, 0
    for count in range(missing + 1):
        moved = count - 1 if moving >= 0 and count > 0 else count
        link_ps = link_free_ps + moved * transfer_ps
        end_ps = device_free_ps
        if count > 0:
            end_ps = max(end_ps, link_ps) + expert_ps[most_tokens]
        if count < missing:
            busy_ps = max(0, link_ps - host_before_ps)
            after_ps = host_after_ps + (missing - count) * most_tokens * host_token_ps
            # Estimated as if they lay evenly in the groups, and each had the most tokens.
            work = -(-(missing - count) // host_groups) * host_work
            # Compared as times, as rate · time might not fit 64 bits.
            if shared_rate > 0 and -(-work // shared_rate) <= busy_ps:
                host_ps = -(-work // shared_rate)
            else:
                host_ps = busy_ps - (-(work - shared_rate * busy_ps) // free_rate)
            end_ps = max(end_ps, host_before_ps + host_ps + after_ps)
        if count == 0 or end_ps < best_ps:
            best, best_ps = count, end_ps
    chosen[:] = False
    if best > 0 and moving >= 0:
        chosen[moving] = True
        best -= 1
    for _ in range(best):
        most = -1
        for at in range(missing):
            if not chosen[at] and (most < 0 or worth[at] > worth[most]):
                most = at
        chosen[most] = True
