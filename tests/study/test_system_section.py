"""What the report concludes from a sweep."""

import pytest

from study.subjects.system import where_it_pays


def point(link: float, prefetch_s: float, cache_s: float) -> dict[str, object]:
    return {"link_gb_per_s": link, "tpot_s": {"st_moe_prefetch": prefetch_s, "lru_cache": cache_s}}


@pytest.mark.parametrize(
    ("prefetch_s", "conclusion"),
    [
        ((2.0, 2.0, 2.0), "Nowhere in this sweep does it beat the cache alone."),
        ((2.0, 0.5, 0.5), "In this sweep it beats the cache alone from 32 GB/s on."),
        ((0.5, 2.0, 0.5), "In this sweep it beats the cache alone from 64 GB/s on."),
    ],
)
def test_where_prefetching_pays(prefetch_s: tuple[float, ...], conclusion: str) -> None:
    sweep = [point(link, seconds, 1.0) for link, seconds in zip((16, 32, 64), prefetch_s, strict=True)]
    assert where_it_pays(sweep) == conclusion
