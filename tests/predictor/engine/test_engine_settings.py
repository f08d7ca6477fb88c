"""What a prefetch engine can be generated with, and set to."""

import pytest

from catalog.errors import ForestageError
from predictor.engine.limits import HeadsLimits, PrefetchEngineLimits
from predictor.engine.settings import LinkSettings, PrefetchEngineSettings
from staging.stager.limits import StagerSettings


def settings(**changes: object) -> PrefetchEngineSettings:
    given = {"layers": 24, "experts": 32, "top_k": 4, "stager": StagerSettings(shares=(8,) * 24), **changes}
    return PrefetchEngineSettings.parse(given, origin="test")


def test_the_default_engine_takes_gpt_oss_20b_with_a_share_for_each_layer() -> None:
    limits = PrefetchEngineLimits()
    of = settings()
    of.check(limits)
    assert of.stager_limits(limits) == limits.stager


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"layers": 25, "stager": StagerSettings(shares=(1,))}, "layers is 25; it is generated for at most 24"),
        ({"top_k": 4, "experts": 3}, "top_k is 4 of 3 experts"),
        ({"distance": 24}, "distance is 24; give less than 24 layers"),
        ({"prefetched": 9}, "prefetched is 9; give at most 8"),
        ({"stager": StagerSettings(shares=(1, 2))}, "shares: 2 groups; give 1, of all layers, or 24"),
        ({"stager": StagerSettings(shares=(193,))}, "of 192 places"),
        ({"link": LinkSettings(outstanding=17)}, "outstanding is 17"),
        ({"link": LinkSettings(expert_base=(1 << 48) - 1024)}, "expert_base: the last byte lies beyond 48"),
        ({"link": LinkSettings(staging_base=(1 << 48) - 1024)}, "staging_base: the last byte lies beyond 48"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, object], refusal: str) -> None:
    with pytest.raises(ForestageError, match=refusal):
        settings(**changes).check(PrefetchEngineLimits())


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"chunk_bytes": 96}, "96 is no power of two"),
        (
            {"expert_bytes": (64 << 20) + 1, "expert_stride": 1 << 30, "staging_stride": 1 << 30, "chunk_bytes": 64},
            "chunk_bytes: 64: experts of 67108865 bytes have more than 1048576 chunks; give 128 or more",
        ),
        ({"expert_bytes": 2000}, "experts of 2000 bytes overlap"),
        ({"staging_stride": 512}, "staging_stride: 512"),
        ({"share": 257}, "share"),
    ],
)
def test_transfers_that_cannot_be_are_refused(changes: dict[str, int], refusal: str) -> None:
    with pytest.raises(ForestageError, match=refusal):
        LinkSettings.parse(changes, origin="test")


def test_an_expert_has_as_many_chunks_as_their_number_holds() -> None:
    link = LinkSettings(expert_bytes=64 << 20, expert_stride=64 << 20, staging_stride=64 << 20, chunk_bytes=64)
    assert link.chunks == 1 << 20


def test_an_engine_that_cannot_be_is_refused() -> None:
    with pytest.raises(ForestageError, match="experts_max: must be a power of two; the next is 64"):
        PrefetchEngineLimits.parse({"experts_max": 33}, origin="test")
    with pytest.raises(ForestageError, match="queue_depth: 16 cannot hold"):
        PrefetchEngineLimits.parse({"queue_depth": 16}, origin="test")
    with pytest.raises(ForestageError, match="lanes: 96 is no power of two"):
        PrefetchEngineLimits.parse({"net": HeadsLimits(lanes=96)}, origin="test")
    with pytest.raises(ForestageError, match="32 lanes; give 64 or more"):
        PrefetchEngineLimits.parse({"net": HeadsLimits(lanes=32)}, origin="test")
