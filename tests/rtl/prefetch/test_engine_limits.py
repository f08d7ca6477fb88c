"""An engine of another size than the default one."""

import pytest

from catalog.errors import ForestageError, SettingError
from predictor.engine.limits import PrefetchEngineLimits
from predictor.next_layer.recipes import RECIPES
from predictor.next_use.recipes import NextUseConfig
from predictor.row_network.sources import feeding_layers
from rtl.prefetch.limits import nets_for, sized_engine


def test_nothing_given_is_the_default_engine() -> None:
    assert sized_engine({}) == PrefetchEngineLimits()


def test_what_is_not_given_follows_the_shape() -> None:
    of = sized_engine({"layers_max": 48, "experts_max": 128, "top_k_max": 8, "domains_max": 2})
    assert (of.candidates_max, of.places, of.spare, of.queue_depth, of.domains_max) == (8, 384, 64, 64, 2)
    default = PrefetchEngineLimits().net
    for head in ("next_layer", "next_use"):
        assert getattr(of.net, head).row_words == 8 * getattr(default, head).row_words
    assert sized_engine({"places": 5, "candidates_max": 3}).places == 5


def test_half_the_lanes_take_twice_the_words_of_a_wide_head() -> None:
    default, half = PrefetchEngineLimits().net, sized_engine({}, lanes=64).net
    assert half.next_layer.row_words == 2 * default.next_layer.row_words
    assert half.next_use.row_words == default.next_use.row_words  # 64 hidden units: a word either way


def test_a_replays_nets_are_never_smaller_than_the_default_ones() -> None:
    default = PrefetchEngineLimits().net
    assert nets_for(layers=8, experts=32) == default
    assert nets_for(layers=48, experts=128) == sized_engine({"layers_max": 48, "experts_max": 128}).net


@pytest.mark.parametrize(("layers", "experts"), [(8, 32), (24, 32), (48, 128), (94, 128)])
def test_the_rows_of_the_deployed_predictors_fit(layers: int, experts: int) -> None:
    net = sized_engine({"layers_max": layers, "experts_max": experts}).net
    for head, config in ((net.next_layer, RECIPES["deployed"].predictor), (net.next_use, NextUseConfig())):
        rows = int((feeding_layers(config, layers=layers) >= 0).sum()) * experts
        assert rows <= head.row_words


def test_no_nets() -> None:
    assert not sized_engine({}, learned=False).learned


def test_what_cannot_be_is_told() -> None:
    with pytest.raises(SettingError, match="power of two"):
        sized_engine({"experts_max": 3})
    with pytest.raises(ForestageError, match="give 64 or more"):
        sized_engine({}, lanes=32)
