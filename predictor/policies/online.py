"""What a policy is told while a model runs: the sources of its foresight, by kind."""

from catalog.errors import ForestageError
from predictor.foresight.online import Joined, OnlineForesight
from predictor.foresight.online_activation import ActivationForesight
from predictor.foresight.online_frequency import FrequencyValues
from predictor.foresight.online_issued import IssuedPredictions
from predictor.foresight.online_learned import LearnedPredictions, LearnedValues
from predictor.policies.parts import Predictors, within
from predictor.policies.policy import Eviction, Policy, Prefetch


def online_foresight(policy: Policy, predictors: Predictors, *, layers: int, experts: int) -> OnlineForesight | None:
    """The foresight of ``policy`` for one sequence at a time; ``None`` where it asks for none.

    Args:
        policy: which.
        predictors: what is asked, as for `parts.part_of`. The streaming form of ``st_moe`` is taken for this.
        layers, experts: of the model.

    Raises:
        ForestageError: for an oracle, whom nobody can ask while a model runs, and for a predictor that is not given, or
            is one of another model.
    """
    if policy.is_oracle:
        raise ForestageError(
            f"policy {policy.name}: knows what has not happened yet; replay a trace, or choose another policy"
        )
    if policy.eviction is Eviction.ACTIVATION and policy.prefetch is Prefetch.ACTIVATION:
        both = _activation(policy, predictors, layers, experts)
        return Joined(both, both)
    values = _values(policy, predictors, layers, experts)
    predictions = _predictions(policy, predictors, layers, experts)
    return None if values is None and predictions is None else Joined(values, predictions)


def _values(policy: Policy, predictors: Predictors, layers: int, experts: int) -> OnlineForesight | None:
    if policy.eviction in (Eviction.STATIC, Eviction.LRU):
        return None
    if policy.eviction is Eviction.FREQUENCY:
        return FrequencyValues(layers, experts)
    if policy.eviction is Eviction.ACTIVATION and predictors.activation is not None:
        return _activation(policy, predictors, layers, experts)
    if policy.eviction is Eviction.LEARNED and predictors.next_use is not None:
        network = predictors.next_use.network
        _check_shape("next-use predictor", (network.layers, network.experts), (layers, experts))
        return LearnedValues(predictors.next_use)
    raise ForestageError(f"policy {policy.name}: values of '{policy.eviction.value}' are not given")


def _predictions(policy: Policy, predictors: Predictors, layers: int, experts: int) -> OnlineForesight | None:
    if policy.prefetch is Prefetch.NONE:
        return None
    next_layer, st_moe = predictors.next_layer, predictors.st_moe
    if policy.prefetch is Prefetch.LEARNED and next_layer is not None:
        _check_shape("learned predictor", (next_layer.layers, next_layer.experts), (layers, experts))
        return LearnedPredictions(next_layer, within(predictors.distances, layers), predictors.prefetched)
    if policy.prefetch is Prefetch.ACTIVATION and predictors.activation is not None:
        return _activation(policy, predictors, layers, experts)
    if policy.prefetch is Prefetch.ST_MOE and st_moe is not None:
        _check_shape(f"predictor '{st_moe.name}'", (st_moe.layers, st_moe.experts), (layers, experts))
        return IssuedPredictions(st_moe, min(predictors.issue_limit, experts))
    raise ForestageError(f"policy {policy.name}: predictions of '{policy.prefetch.value}' are not given")


def _activation(policy: Policy, predictors: Predictors, layers: int, experts: int) -> ActivationForesight:
    """For values, predictions or both, as ``policy`` asks."""
    profile = predictors.activation
    if profile is None:
        raise ForestageError(f"policy {policy.name}: the profile of '{Eviction.ACTIVATION.value}' is not given")
    _check_shape("activation profile", (profile.layers, profile.experts), (layers, experts))
    if policy.prefetch is not Prefetch.ACTIVATION:
        return ActivationForesight(profile)
    return ActivationForesight(
        profile, within(predictors.activation_distances, layers), min(predictors.prefetched, experts)
    )


def _check_shape(name: str, own: tuple[int, int], asked: tuple[int, int]) -> None:
    """Raise unless a predictor is one of the model that runs."""
    if own != asked:
        raise ForestageError(
            f"{name}: made for (layers, experts) = {own}, the model has {asked}; give one made for this model"
        )
