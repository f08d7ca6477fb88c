"""The corrections of the calibration: each parameter moves towards its own figure, layer by layer, and rests there."""

from dataclasses import replace

import numpy as np
import pytest

from traces.synthesis.calibrate import KINDS_SHARE, _correct_choice, _correct_layers, _correct_sameness
from traces.synthesis.measure import Figures, Floats
from traces.synthesis.model import Parameters, Sameness
from traces.synthesis.profile import Profile, Shape

LAYERS, EXPERTS, TOP_K = 3, 8, 2
OFF = np.array([-0.1, 0.0, 0.1])
"""Of what is found, beside what is asked for: too little in the first layer, too much in the last."""

TARGET = Figures(
    load=np.ones((LAYERS, EXPERTS)),
    temporal_overlap=np.full(LAYERS, 2.0),
    sequence_overlap=np.full(LAYERS, 1.6),
    domain_overlap=np.full(LAYERS, 1.3),
    mutual_information=np.full(LAYERS - 1, 0.2),
)
PROFILE = Profile(Shape(LAYERS, EXPERTS, TOP_K), TARGET)


def parameters() -> Parameters:
    return Parameters(
        bias=np.zeros((LAYERS, EXPERTS)),
        domain=np.ones(LAYERS),
        sequence=np.ones(LAYERS),
        kind=np.full(LAYERS, 2.0),
        copy=np.zeros(LAYERS),
        favourites=np.zeros((LAYERS, 1, TOP_K), np.int64),
        sameness=Sameness(0.1, 0.2, 0.4, 0.6),
    )


def moves(corrected: Parameters, name: str) -> list[float]:
    """Sign of the change of a parameter, by layer."""
    change: Floats = getattr(corrected, name) - getattr(parameters(), name)
    return np.sign(np.round(change, 12)).tolist()


@pytest.mark.parametrize(
    ("name", "off"),
    [
        ("copy", ("temporal_overlap",)),
        ("sequence", ("sequence_overlap",)),
        # What a sequence has beyond its domain stays as it was.
        ("domain", ("domain_overlap", "sequence_overlap")),
    ],
)
def test_a_layer_is_moved_by_its_own_figure(name: str, off: tuple[str, ...]) -> None:
    found = replace(TARGET, **{figure: getattr(TARGET, figure) + OFF for figure in off})
    corrected = parameters()
    _correct_layers(corrected, TARGET, found, PROFILE)
    assert moves(corrected, name) == [1, 0, -1]
    for other in {"copy", "sequence", "domain", "kind"} - {name}:
        assert moves(corrected, other) == [0, 0, 0]


def test_kinds_are_moved_by_the_information_of_a_layers_pairs() -> None:
    corrected = parameters()
    _correct_choice(corrected, TARGET, replace(TARGET, mutual_information=np.array([0.1, 0.3])), PROFILE)
    assert moves(corrected, "kind") == [1, 0, -1]
    assert not corrected.bias.any()


def test_biases_are_moved_by_the_loads_about_their_mean() -> None:
    load = np.ones((LAYERS, EXPERTS))
    load[0, :2] = 0.5, 1.5
    corrected = parameters()
    _correct_choice(corrected, TARGET, replace(TARGET, load=load), PROFILE)
    assert np.sign(corrected.bias[0, :2]).tolist() == [1, -1]
    assert not corrected.bias[1:].any()
    np.testing.assert_allclose(corrected.bias.mean(axis=1), 0, atol=1e-12)
    assert moves(corrected, "kind") == [0, 0, 0]


@pytest.mark.parametrize(("index", "name"), list(enumerate(("domain", "sequence", "neighbours"))))
def test_chances_of_one_kind_are_to_explain_their_share(index: int, name: str) -> None:
    def steps(sameness: Sameness) -> Floats:
        return np.diff([sameness.anywhere, sameness.domain, sameness.sequence, sameness.neighbours])

    def corrected(excesses: Floats) -> Floats:
        domain, sequence, temporal = 1 + np.cumsum(excesses)
        found = replace(
            TARGET,
            domain_overlap=np.full(LAYERS, domain),
            sequence_overlap=np.full(LAYERS, sequence),
            temporal_overlap=np.full(LAYERS, temporal),
        )
        sameness = parameters().sameness
        _correct_sameness(sameness, TARGET, found)
        return steps(sameness)

    share = KINDS_SHARE * np.array([0.3, 0.3, 0.4])  # of domain, sequence and neighbours, each beyond the one before
    before = steps(parameters().sameness)
    np.testing.assert_allclose(corrected(share), before)
    less = share.copy()
    less[index] /= 2
    grown = corrected(less) - before
    assert grown[index] > 0.01, name
    np.testing.assert_allclose(np.delete(grown, index), 0, atol=1e-12)
