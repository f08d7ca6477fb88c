"""One expert by tokens, as a table's cells and in words."""

from perfmodel.expert_times import MOST_TOKENS, ExpertTime, ExpertTimes
from study.numbers import count, seconds

COLUMNS = (
    "tokens",
    "in memory",
    "one more\nin memory",
    "on the\ndevice",
    "fetched\nfrom it",
    "fetched\nfrom the host",
    "by the host's\nprocessor",
)


def cells(row: ExpertTime) -> tuple[str, ...]:
    """Of one number of tokens, as `COLUMNS`."""
    places = (row.in_memory_s, row.in_memory_more_s, row.resident_s, row.fetched_s, row.host_fetched_s, row.host_s)
    return (count(row.tokens), *("–" if at is None else seconds(at) for at in places))


def lost_in_words(result: ExpertTimes) -> list[str]:
    """From how many tokens on an expert in memory loses, a sentence each."""
    lost = result.lost
    known = result.times[0].host_s is not None
    told = [
        ("Alone in memory, an expert", lost.to_resident, "on the device, its weights there"),
        ("Alone in memory, an expert", lost.to_fetched, "fetched from there and computed on the device"),
        ("Alone in memory, an expert", lost.to_host_fetched, "fetched from the host and computed on the device"),
        *([("Alone in memory, an expert", lost.to_host, "by the host's processor")] if known else []),
        ("While every group of the memory is busy, one more expert", lost.more_to_resident, "on the device"),
    ]
    return [f"{who} {_from(first)} {where}." for who, first, where in told]


def _from(first: int | None) -> str:
    if first is None:
        return f"is not slower, up to {count(MOST_TOKENS)} tokens, than"
    if first == 1:
        return "is slower from the first token on than"
    return f"is slower from {count(first)} tokens on than"
