"""What computes a layer's missing experts where they lie, one after the other in each group of the memory."""

from catalog.compiled import njit
from perfmodel.compiled.state import NEVER, Given, State
from staging.stager.compiled.state import INLINE


@njit(**INLINE)
def begin_layer(state: State, given: Given, count: int) -> None:
    """The first ``count`` of ``state.host_experts`` are to be computed; it begins when it has the activations."""
    n = state.numbers
    n.host_after = given.host_after_ps
    for nth in range(count):
        n.host_after += state.host[nth] * given.host_token_ps
    if given.host_groups > 1:
        count = _keep_longest_group(state, given, count)
    n.host_first, n.host_last = 0, count
    n.host_began, n.host_result = -1, -1
    n.host_next = n.now + given.host_before_ps if count else NEVER


@njit(**INLINE)
def _keep_longest_group(state: State, given: Given, count: int) -> int:
    """How many experts the group has that takes longest while the link is idle; ``state.host`` then holds these."""
    longest, longest_ps = 0, 0
    for group in range(given.host_groups):
        takes_ps = 0
        for nth in range(count):
            if state.host_experts[nth] % given.host_groups == group:
                takes_ps -= -given.host_work // given.host_free_rate[state.host[nth]]
        if takes_ps > longest_ps:
            longest, longest_ps = group, takes_ps
    kept = 0
    for nth in range(count):
        if state.host_experts[nth] % given.host_groups == longest:
            state.host[kept] = state.host[nth]
            kept += 1
    return kept


@njit(**INLINE)
def step_on(state: State, given: Given) -> None:
    """What is due at ``host_next``: it begins, or an expert has ended."""
    n = state.numbers
    if n.host_began < 0:
        n.host_began = n.now
    else:
        n.host_first += 1
    if n.host_first == n.host_last:
        n.host_next = NEVER
        n.host_result = n.now + n.host_after
        n.host_busy += n.now - n.host_began
        return
    n.host_left, n.host_since = given.host_work, n.now
    _set_rate(state, given)


@njit(**INLINE)
def link_changed(state: State, given: Given) -> None:
    """The link moves from now on, or does not any more: what is left goes at another rate."""
    n = state.numbers
    if n.host_began < 0 or n.host_first == n.host_last:
        return
    if n.host_next <= n.now:
        return  # it has ended, which is due next
    n.host_left -= n.host_rate * (n.now - n.host_since)
    n.host_since = n.now
    _set_rate(state, given)


@njit(**INLINE)
def _set_rate(state: State, given: Given) -> None:
    n = state.numbers
    tokens = state.host[n.host_first]
    n.host_rate = given.host_free_rate[tokens] if n.moving < 0 else given.host_shared_rate[tokens]
    n.host_next = n.now - (-n.host_left // n.host_rate) if n.host_rate > 0 else NEVER
