"""The link's times in the engine: the throttle's debt is carried from transfer to transfer."""

import pytest

from predictor.engine.limits import PrefetchEngineLimits
from predictor.engine.timing import DmaLink
from staging.transfer.limits import TransferSettings
from staging.transfer.timing import MemoryTiming, ServiceTiming
from tests.predictor.engine.engine_samples import small_settings

LIMITS = PrefetchEngineLimits(layers_max=4, experts_max=8, top_k_max=2, candidates_max=2, places=12, spare=4)
MEMORY = MemoryTiming(latency=30)


@pytest.mark.parametrize("first", [0, 1, 3])
@pytest.mark.parametrize("share", [256, 40])
def test_a_service_that_finds_no_debt_is_the_links(first: int, share: int) -> None:
    link = {"share": share, "expert_base": 77, "expert_stride": 1100, "staging_base": 3, "staging_stride": 1024}
    settings = small_settings(link=link)
    of = settings.link
    timing = ServiceTiming(
        LIMITS.link, MEMORY, TransferSettings(outstanding=of.outstanding, share=share), 7, of.expert_bytes, 256
    )
    where = 77 + 9 * 1100, 3 + 5 * 1024
    service = DmaLink(LIMITS, settings, MEMORY).serve(1000, 9, 5, first)
    assert service.asked == tuple(1000 + timing.issued(*where, first, chunk) for chunk in range(first + 1, 4))
    assert service.there == tuple(1000 + timing.passed(*where, first, chunks) for chunks in range(first + 1, 5))


def test_the_throttle_lets_transfers_one_after_the_other_take_no_more_than_their_share() -> None:
    settings = small_settings(link={"share": 10, "expert_stride": 1024})
    link = DmaLink(LIMITS, settings, MEMORY)
    now, began = 0, -1
    for key in range(6):
        service = link.serve(now, key, key, 0)
        link.end(service, 4)
        began = service.there[0] if began < 0 else began
        now = service.there[-1] + 3
    beats = 6 * 16
    # But for the first burst, and what the last still owes.
    assert now - began == pytest.approx((beats - 4) * 256 / 10, abs=150)


def test_debt_is_forgiven_in_time_and_a_stop_owes_only_what_it_asked_for() -> None:
    settings = small_settings(link={"share": 10, "expert_stride": 1024})

    def wait(chunks: int, gap: int) -> int:
        """Cycles that a second transfer comes later than it would without the first."""
        link = DmaLink(LIMITS, settings, MEMORY)
        service = link.serve(0, 0, 0, 0)
        link.end(service, chunks)
        now = service.there[chunks - 1] + gap
        return link.serve(now, 1, 1, 0).there[0] - DmaLink(LIMITS, settings, MEMORY).serve(now, 1, 1, 0).there[0]

    assert wait(4, 1000) == wait(1, 1000) == 0
    assert wait(4, 1) > wait(1, 1) > 0
    assert wait(4, 1) == wait(4, 11) + 10
