"""One expert by tokens, as a table's cells and in words."""

from perfmodel.expert_times import MOST_TOKENS, ExpertTime, ExpertTimes
from study.numbers import count, seconds
from study.system.words import listed

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
    """From how many tokens on an expert in memory loses: alone, and while the memory is busy; a sentence each."""
    lost = result.lost
    known = result.times[0].host_s is not None
    told = [
        f"to the device with its weights there {_from(lost.to_resident)}",
        f"to being fetched from that memory {_from(lost.to_fetched)}",
        f"to being fetched from the host {_from(lost.to_host_fetched)}",
        *([f"to the host's processor {_from(lost.to_host)}"] if known else []),
    ]
    return [
        f"Alone in memory, an expert loses {listed(told)}.",
        f"While every group of the memory is busy, one more expert loses to the device {_from(lost.more_to_resident)}.",
    ]


def _from(first: int | None) -> str:
    if first is None:
        return f"at no number up to {count(MOST_TOKENS)}"
    return "from the first token on" if first == 1 else f"from {count(first)} tokens on"
