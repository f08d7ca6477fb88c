"""Policies: one module each; here, their names."""

from catalog.errors import unknown_name
from perfmodel.policies.all_resident import AllResident
from perfmodel.policies.base import Policy, PolicyCounts, System
from perfmodel.policies.lru_cache import LruCache
from perfmodel.policies.on_demand import OnDemand
from perfmodel.policies.perfect_prefetch import PerfectPrefetch
from perfmodel.policies.st_moe_prefetch import StMoePrefetch

__all__ = ["Policy", "PolicyCounts", "System", "find_policy", "policy_names"]

_POLICIES: dict[str, type[Policy]] = {
    policy.name: policy for policy in (OnDemand, LruCache, StMoePrefetch, PerfectPrefetch, AllResident)
}


def policy_names() -> tuple[str, ...]:
    """Names of all policies, in the order in which reports list them: from the slowest to the bound."""
    return tuple(_POLICIES)


def find_policy(name: str) -> type[Policy]:
    """The policy of that name.

    Raises:
        ForestageError: naming the nearest known name.
    """
    if name not in _POLICIES:
        raise unknown_name("policy", name, _POLICIES)
    return _POLICIES[name]
