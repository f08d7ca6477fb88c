"""The section of the whole system: the answer in words and by share held, then the figures behind it."""

import json
from collections.abc import Sequence

from perfmodel.comparison import Comparison
from study.blocks import Block, Command, Note, Picture, Section, Text, picture
from study.figures.system.maps import HOSTS, LINKS, MapAxis, map_of_winners
from study.figures.system.prices import has_prices, time_over_price
from study.figures.system.times import parts_of_a_token, time_by_share
from study.numbers import count, tokens_of
from study.stages import StudyContext
from study.system import sentences
from study.system.commands import remaking
from study.system.tables import by_share, every_row
from study.system.words import share_text

TITLE = "The whole system"


def section(context: StudyContext) -> Section:
    """The section, of the stage's result."""
    result = context.results["system"]
    points, by_link, by_host = (
        [Comparison.model_validate_json(json.dumps(one)) for one in result[name]]
        for name in ("points", "map", "host_map")
    )
    share = context.config.system.capacity_fraction
    point = next(one for one in points if one.config.capacity_fraction == share)
    simulated = tokens_of(result["map_tokens"], result["map_sequences"])
    blocks: list[Block] = [
        Text(sentences.answer(context, point)),
        by_share(points),
        Text(f"{sentences.what_each_brings(point)} {sentences.where_it_does_not_pay(by_link, by_host)}".strip()),
        picture(
            time_by_share(points),
            "time-by-share",
            "Mean time per token of each policy by the share of all experts that the device holds, on "
            f"{tokens_of(result['tokens'], result['sequences'])} of the test part. Pale, dashed: oracles, which know "
            "what has not happened yet.",
        ),
        _map(by_link, LINKS, point, "map", f"What to build by link and share held ({simulated})", "link"),
        _map(
            by_host,
            HOSTS,
            point,
            "map-host",
            f"What to build by host memory and share held, over the machine's own link of {point.link_gb_per_s:g} GB/s "
            f"({simulated})",
            "host memory",
        ),
        picture(
            parts_of_a_token(point),
            "tpot",
            f"Where the time goes with {share_text(share)} of the experts held. Pale: oracles. Bold: what to build.",
        ),
        every_row(point),
        *_prices(point, result["tuning_tokens"]),
        Note(sentences.how_it_was_measured(context, point, result)),
        Command(remaking(context)),
    ]
    return Section(id="system", title=TITLE, blocks=tuple(blocks), facts=sentences.facts(point))


def _map(
    cells: Sequence[Comparison], axis: MapAxis, point: Comparison, identity: str, what: str, resource: str
) -> Picture:
    """A map of winners; ``point`` is of the machine as it is."""
    own = axis.value(point)
    return picture(
        map_of_winners(cells, axis, own),
        identity,
        f"{what}, and how many times as fast it is as the fastest policy of the other kind (learned against "
        "unlearned). Bold: learned, and the whole 95 % interval is above 1; hatched: the interval holds 1."
        + (f" Framed: the machine's own {resource}." if own in map(axis.value, cells) else ""),
    )


def _prices(point: Comparison, tuning_tokens: int) -> list[Block]:
    """Time over the price of a transfer, where a row has one."""
    if not has_prices(point):
        return []
    return [
        picture(
            time_over_price(point),
            "prices",
            "What moving too much, or too little, costs: time per token by the price of a transfer, which is what an "
            "expert that no gate waits for must be worth beyond what gives way. At 0 everything moves that is worth "
            f"more than what gives way. {count(tuning_tokens)} training tokens, "
            f"{share_text(point.config.capacity_fraction)} of the experts held. Ringed: the price that was "
            "chosen; a row without a ring was faster without background loads.",
        )
    ]
