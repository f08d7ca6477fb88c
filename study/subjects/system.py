"""The whole system: what to build on this traffic and machine, and the time per token of each policy."""

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from catalog import load_catalog
from catalog.progress import Progress
from perfmodel.comparison import Comparison, Gain, Line, compare
from perfmodel.config import SimulationConfig
from perfmodel.costs_of import resolve_costs
from perfmodel.host import Host, host_of
from perfmodel.parts import Part, Predictors
from perfmodel.policy import Eviction, Prefetch
from perfmodel.rows import HOST, LRU, STATIC
from predictor.next_layer.predictor import NextLayerPredictor
from predictor.next_use.predictor import NextUsePredictor
from study import needs
from study.answer import (
    Verdict,
    advice,
    fastest,
    gain_over,
    gain_text,
    in_words,
    overtakes,
    price_text,
)
from study.blocks import Block, Command, Fact, Note, Row, Section, Table, Text, picture
from study.figures.system import map_of_winners, parts_of_a_token, time_by_share
from study.numbers import count, layers_text, percent, seconds, size, tokens_of
from study.stages import Stage, StudyContext, kept
from study.subjects.base import Subject
from study.subjects.learned import PREDICTOR_FILE as NEXT_LAYER_FILE
from study.subjects.next_use import PREDICTOR_FILE as NEXT_USE_FILE
from study.system_parts import chosen_sequences, has_decode, system_parts
from traces import DECODE

TITLE = "The whole system"

DESKTOP = {"host_gb_per_s": 76.0, "host_tflops": 1.0}
"""Host where neither the settings nor the catalogue know one (assumption: a desktop's two channels of DDR5-5600 at
85 % of their peak, and half the FP32 peak of its cores)."""


def run(context: StudyContext, progress: Progress) -> dict[str, Any]:
    """Compare all policies at each share held, and those that are no oracles' at each point of the map."""
    settings = context.config.system
    shares = shares_of(context)
    grid = [(link, share) for share in sorted(settings.capacity_fractions) for link in sorted(settings.link_gb_per_s)]
    read = 2  # parts whose foresight is made; each takes about as long as a point
    total = 2 * read + len(shares) + len(grid)
    predictors = trained(context)
    tuning, test, uses = system_parts(
        context.trace, predictors, tokens=settings.tokens, progress=lambda done, _: progress(done, total)
    )
    points = []
    for number, share in enumerate(shares):
        config = simulation_config(context, share)
        points.append(kept(context, "system", f"share-{share:g}", partial(_compared, tuning, test, config, uses)))
        progress(read + number + 1, total)
    begun = read + len(shares)
    few_tuning, few, uses = system_parts(
        context.trace, predictors, tokens=settings.map_tokens, bounds=False,
        progress=lambda done, _: progress(begun + done, total),
    )  # fmt: skip
    cells = []
    for number, (link, share) in enumerate(grid):
        config = simulation_config(context, share, link_gb_per_s=link)
        cells.append(
            kept(context, "system", f"map-{link:g}-{share:g}", partial(_compared, few_tuning, few, config, uses))
        )
        progress(begun + read + number + 1, total)
    return {
        "points": points,
        "map": cells,
        "tokens": test.timed_tokens,
        "sequences": test.trace.sequences,
        "map_tokens": few.timed_tokens,
        "map_sequences": few.trace.sequences,
        "tuning_tokens": tuning.timed_tokens,
        "map_tuning_tokens": few_tuning.timed_tokens,
        "prompts_decoded": not has_decode(context.trace),
    }


def _compared(tuning: Part, test: Part, config: SimulationConfig, uses: NDArray[np.int64]) -> dict[str, Any]:
    return compare(tuning, test, config, uses, host=True).model_dump(mode="json")


def trained(context: StudyContext) -> Predictors:
    """The predictors that the study trained."""
    has = {name: name not in context.left_out for name in ("next_use", "learned")}
    return Predictors(
        next_use=NextUsePredictor.load(context.out / NEXT_USE_FILE) if has["next_use"] else None,
        next_layer=NextLayerPredictor.load(context.out / NEXT_LAYER_FILE) if has["learned"] else None,
        distances=(context.config.lookahead,),
    )


def shares_of(context: StudyContext) -> list[float]:
    """Shares held, ascending, with the one that is shown in detail."""
    settings = context.config.system
    return sorted({*settings.capacity_fractions, settings.capacity_fraction})


def host_settings(context: StudyContext) -> dict[str, float]:
    """What the configuration must say of the host: the study's settings; a desktop's figures where nothing is known."""
    settings = context.config.system
    named = {name: getattr(settings, name) for name in DESKTOP if getattr(settings, name) is not None}
    machine = load_catalog().machines.find(settings.machine)
    host = host_of(SimulationConfig(machine=settings.machine, **named), machine)
    if host is None:
        return {**DESKTOP, **named}
    return named if host.flops_per_s is not None else {"host_tflops": DESKTOP["host_tflops"], **named}


def simulation_config(context: StudyContext, share: float, *, link_gb_per_s: float | None = None) -> SimulationConfig:
    """One point: ``share`` of all experts held, over the machine's link or another."""
    settings = context.config.system
    given = {
        "sizes_of": settings.sizes_of,
        "machine": settings.machine,
        "scope": "global",
        "capacity_fraction": share,
        "link_gb_per_s": link_gb_per_s,
        **host_settings(context),
    }
    return SimulationConfig.parse_settings(given, origin="study configuration: system")


def lacks(context: StudyContext) -> str | None:
    """Why the trace cannot be simulated (decode tokens, layers, sizes, …); ``None`` if it can."""
    return (
        needs.test_sequences(context.trace)
        or needs.layers_ahead(context)
        or needs.known_sizes(context)
        or not_decoded(context)
        or _unsimulated(context)
    )


def not_decoded(context: StudyContext) -> str | None:
    """Why the chosen sequences have nothing to time; ``None`` if they have. A trace of prompts alone is decoded."""
    trace = context.trace
    if not has_decode(trace):
        return None
    phase = np.asarray(trace.phase)
    settings = context.config.system
    for name in ("tokens", "map_tokens"):
        tuning, test = chosen_sequences(trace, tokens=getattr(settings, name))
        for which, sequences in (("training", tuning), ("test", test)):
            for index in sequences:
                tokens = trace.sequence_slice(int(index))
                if (phase[tokens] == DECODE).any():
                    break
            else:
                return (
                    f"no decode token in the {which} sequences that are simulated; give a trace whose sequences "
                    f"decode, or a larger system.{name} in a TOML file given as --config"
                )
    return None


def _unsimulated(context: StudyContext) -> str | None:
    """What the simulation refuses, and which setting of the study changes it; ``None`` if it refuses nothing."""
    trace = context.trace
    if trace.metadata.has_unrecorded:
        counted = np.asarray(trace.phase) == DECODE if has_decode(trace) else np.ones(trace.tokens, np.bool_)
        if not trace.recorded()[counted].all():
            return "a decode token has no recorded routing in some layer; give a complete recording"

    def check() -> None:
        for share in shares_of(context):
            costs, _ = resolve_costs(trace, simulation_config(context, share))
            costs.expert_bytes  # noqa: B018

    why = needs.refusal(check)
    return None if why is None else f"{why} (settings of the study: system.sizes_of, system.machine)"


def section(context: StudyContext) -> Section:
    """The answer in words and by share held, then the figures behind it."""
    result = context.results["system"]
    points = [Comparison.model_validate_json(json.dumps(point)) for point in result["points"]]
    cells = [Comparison.model_validate_json(json.dumps(point)) for point in result["map"]]
    share = context.config.system.capacity_fraction
    point = next(one for one in points if one.config.capacity_fraction == share)
    blocks: list[Block] = [
        Text(answer_text(context, point)),
        _by_share(points),
        Text(f"{what_each_brings(point)}{where_it_does_not_pay(cells)}"),
        picture(
            time_by_share(points),
            "time-by-share",
            "Mean time per token of each policy by the share of all experts that the device holds, on "
            f"{tokens_of(result['tokens'], result['sequences'])} of the test part. Pale, dashed: oracles, which know "
            "what has not happened yet.",
        ),
        picture(
            parts_of_a_token(point),
            "tpot",
            f"Where the time goes with {_share(share)} of the experts held. Pale: oracles. Bold: what to build.",
        ),
        _rows_table(point),
        picture(
            map_of_winners(cells, point.link_gb_per_s, _host_gb_per_s(cells[0])),
            "map",
            f"What to build by link and share held ({tokens_of(result['map_tokens'], result['map_sequences'])}), and "
            "how many times as fast it is as the fastest policy of the other kind (learned against unlearned). Bold: "
            "learned, and the whole 95 % interval is above 1; hatched: the interval holds 1."
            + (
                " Framed: the machine's own link."
                if point.link_gb_per_s in {cell.link_gb_per_s for cell in cells}
                else ""
            ),
        ),
        Note(_how_it_was_measured(context, point, result)),
        Command(_command(context, shares_of(context), context.config.system.tokens)),
    ]
    return Section(id="system", title=TITLE, blocks=tuple(blocks), facts=_facts(point))


def answer_text(context: StudyContext, point: Comparison) -> str:
    """What to build at one point, and how much faster it is than each rival."""
    found = advice(point)
    best = found.best
    rivals = [
        (LRU, "an LRU cache that fetches what is missing"),
        (STATIC, "a static placement with the host computing"),
    ]
    gains = [f"{gain_text(gain)} as fast as {words}" for name, words in rivals if (gain := gain_over(point, name))]
    if found.rival is not None and found.rival.name not in (LRU, STATIC):
        kind = "the fastest unlearned policy" if best.policy.is_learned else "the fastest learned policy"
        gains.append(f"{gain_text(found.gain)} as fast as “{found.rival.name}”, {kind}")
    verdict = {
        Verdict.PAYS: "Prediction pays here.",
        Verdict.UNCLEAR: "Whether prediction pays here is not clear: the interval holds 1.",
        Verdict.DOES_NOT: "Prediction does not pay here.",
        None: "Nothing learned was compared.",
    }[found.verdict]
    return (
        f"On this traffic, on {machine_text(context, point)}, with {_share(point.config.capacity_fraction)} of the "
        f"experts held, build “{best.name}”: it {in_words(best)}. A token takes {seconds(best.outcome.tpot.mean_s)}"
        + (f", {_listed(gains)}" if gains else "")
        + f" (95 % intervals over sequences). {verdict}"
        + _silicon(context, best)
    )


def _host(point: Comparison) -> Host | None:
    return host_of(point.config, load_catalog().machines.find(point.config.machine))


def _host_gb_per_s(point: Comparison) -> float | None:
    """What the host's memory reads, where the link shares it."""
    host = _host(point)
    return host.bytes_per_s / 1e9 if host is not None and point.config.shared_host_memory else None


def machine_text(context: StudyContext, point: Comparison) -> str:
    """The machine with its link and its host, and which of them are assumptions."""
    host = _host(point)
    text = f"{point.config.machine} with a host link of {point.link_gb_per_s:g} GB/s"
    if host is None or host.flops_per_s is None:
        return text
    settings = context.config.system
    assumed = [name for name in host_settings(context) if getattr(settings, name) is None]
    return (
        f"{text} and a host that reads {host.bytes_per_s / 1e9:.3g} GB/s and computes {host.flops_per_s / 1e12:.2g} "
        "TFLOPS" + (" (assumption: a desktop's)" if assumed else "")
    )


def _silicon(context: StudyContext, best: Line) -> str:
    """What the recommended row's predictors take on chip."""
    used = [
        (best.policy.eviction is Eviction.LEARNED, "next_use", "next-use predictor"),
        (best.policy.prefetch is Prefetch.LEARNED, "learned", "next-layer predictor"),
    ]
    told = [
        f"{size(context.results[stage]['size']['sram_bytes_per_layer'])} of SRAM a layer for the {name}"
        for needed, stage, name in used
        if needed
    ]
    ahead = f", asked {layers_text(context.config.lookahead)} ahead" if best.policy.prefetch is Prefetch.LEARNED else ""
    return f" It takes {' and '.join(told)}{ahead}." if told else ""


def _listed(texts: Sequence[str]) -> str:
    *most, last = texts
    return f"{', '.join(most)} and {last}" if most else last


def _by_share(points: Sequence[Comparison]) -> Table:
    """The recommended row at each share held, and its gains."""
    rows = []
    for point in points:
        found = advice(point)
        oracle = fastest(line for line in point.lines if line.is_oracle)
        unlearned = found.gain if found.best.policy.is_learned else None
        rows.append(
            Row(
                (
                    _share(point.config.capacity_fraction),
                    found.best.name,
                    price_text(found.best.policy) if found.best.policy.background else "–",
                    seconds(found.best.outcome.tpot.mean_s),
                    gain_text(gain_over(point, LRU)),
                    gain_text(gain_over(point, STATIC)),
                    gain_text(unlearned),
                    "–" if oracle is None else seconds(oracle.outcome.tpot.mean_s),
                )
            )
        )
    return Table(
        columns=(
            "held",
            "what to build",
            "price of a transfer",
            "time per token",
            "over LRU",
            "over static placement",
            "over the fastest unlearned",
            "fastest oracle",
        ),
        rows=tuple(rows),
        caption="What to build is what was fastest on training tokens; times and gains are those on the test tokens, "
        "with 95 % intervals over sequences. The fastest unlearned rival is the one that was fastest on the test "
        "tokens themselves. An expert that is certainly wanted within 2, 4, 8 and 16 tokens is worth 4 certain uses. "
        "Oracles know the coming uses but not the best use of the link: they are no strict bounds and can be slower.",
        text_columns=(0, 1),
    )


def what_each_brings(point: Comparison) -> str:
    """A sentence: what prefetch alone, eviction alone and both bring over LRU where what is missing is fetched."""
    told = {
        "ST-MoE prefetch": "prefetch by ST-MoE's tables alone",
        "learned prefetch": "learned prefetch alone",
        "perfect prefetch": "perfect prefetch alone",
        "learned eviction": "learned eviction alone",
        "learned": "both, with background loads where they pay",
    }
    time_s = {line.name: line.outcome.tpot.mean_s for line in point.lines}
    brings = [f"{words} {time_s[LRU] / time_s[name]:.2f} ×" for name, words in told.items() if name in time_s]
    return f"Where a missing expert is fetched, over LRU: {_listed(brings)}. " if brings else ""


def where_it_does_not_pay(cells: Sequence[Comparison]) -> str:
    """Sentences: at which points of the map prediction pays, and from which link on a missing expert is fetched."""
    verdicts = {(cell.config.capacity_fraction, cell.link_gb_per_s): advice(cell).verdict for cell in cells}
    if all(verdict is None for verdict in verdicts.values()):
        return "Without learned predictors the map shows which unlearned policy wins where."
    paying = [place for place, verdict in verdicts.items() if verdict is Verdict.PAYS]
    unclear = [place for place, verdict in verdicts.items() if verdict is Verdict.UNCLEAR]
    losing = [place for place, verdict in verdicts.items() if verdict is Verdict.DOES_NOT]
    every = len(paying) == len(verdicts)
    text = f"Prediction pays at {'all' if every else f'{len(paying)} of the'} {len(verdicts)} points of the map"
    if unclear:
        text += f", makes no clear difference at {len(unclear)} ({_places(unclear)})"
    if losing:
        text += f", and loses to an unlearned policy at {len(losing)} ({_places(losing)})"
    shares = sorted({cell.config.capacity_fraction or 0.0 for cell in cells})
    turns = {share: overtakes([cell for cell in cells if cell.config.capacity_fraction == share]) for share in shares}
    alike: dict[float, list[str]] = {}
    for share, link in turns.items():
        if link is not None:
            alike.setdefault(link, []).append(_share(share))
    told = [f"{link:g} GB/s on with {_listed(held)} held" for link, held in sorted(alike.items())]
    if told and any(cell.line(cell.recommended).family == HOST for cell in cells):
        text += f". Fetching what is missing beats computing it on the host from {_listed(told)}"
    return f"{text}."


def _share(share: float | None) -> str:
    """``25 %``, ``12.5 %``."""
    assert share is not None, "every point has one"
    return percent(share, 1 if round(1000 * share) % 10 else 0)


def _places(places: Sequence[tuple[float | None, float]]) -> str:
    """``50 % over 64, 128 GB/s; 75 % over 512 GB/s``."""
    shares: dict[float, list[float]] = {}
    for share, link in sorted(places, key=lambda place: (place[0] or 0.0, place[1])):
        shares.setdefault(share or 0.0, []).append(link)
    return "; ".join(
        f"{_share(share)} held over {', '.join(f'{link:g}' for link in links)} GB/s" for share, links in shares.items()
    )


def _rows_table(point: Comparison) -> Table:
    """Every row at one point."""
    return Table(
        columns=(
            "policy",
            "time per token",
            "p95",
            "hit rate",
            "fetched",
            "host computed",
            "moved",
            "used of those moved ahead",
            "what to build is faster by",
        ),
        rows=tuple(
            Row(
                (
                    f"{line.name} ←" if line.name == point.recommended else line.name,
                    seconds(line.outcome.tpot.mean_s),
                    seconds(line.outcome.tpot.p95_s),
                    percent(line.outcome.hit_rate),
                    f"{line.outcome.fetched:.1f}",
                    f"{line.outcome.computed:.1f}",
                    size(line.outcome.moved_bytes),
                    percent(line.outcome.useful_share),
                    "oracle" if line.is_oracle else gain_text(gain_over(point, line.name)),
                ),
                bound=line.is_oracle,
            )
            for line in point.lines
        ),
        caption="fetched, host computed: missing experts a token; moved: over the link, a token; ←: what to build. "
        f"Every expert on the device: {seconds(point.all_resident_s)} a token"
        + (
            ""
            if point.link_roofline_s is None
            else f"; a policy that fetches cannot take less than {seconds(point.link_roofline_s)}"
        )
        + ".",
    )


def _how_it_was_measured(context: StudyContext, point: Comparison, result: dict[str, Any]) -> str:
    """Provenance and assumptions of every figure of the section."""
    model = context.trace.metadata.model
    record = load_catalog().match_model(model)
    sizes_of = context.config.system.sizes_of or model
    own = record is not None and record.name == sizes_of
    return (
        f"Simulated: {tokens_of(result['tokens'], result['sequences'])}, one request at a time (batch 1)"
        + (", prompts as if they were decoded, as the trace has no others" if result["prompts_decoded"] else "")
        + f"; routing of {model}"
        + ("" if own else f", with the weight sizes of {sizes_of} (not the traced model's own)")
        + f"; an expert is {size(point.expert_bytes)}. One cache for all layers, which begins with the experts most "
        f"used in training. Each row's free settings were chosen on {count(result['tuning_tokens'])} training tokens ("
        f"{count(result['map_tuning_tokens'])} for the map). The link and the host's processor share the host's "
        "memory: while the link reads, the processor has only the rest, and no link moves more than the memory reads. "
        "ST-MoE's tables look one layer ahead. No prediction moves an expert at zero time or zero bytes; the prefetch "
        "engine's own cycles, kernel launches and norms take no time, and kernels are rooflines."
    )


def _facts(point: Comparison) -> tuple[Fact, ...]:
    """Headline figures: the recommended row over LRU, over the static placement, and over its rival."""
    found = advice(point)
    held = f"{_share(point.config.capacity_fraction)} of the experts held"
    facts = [
        Fact(seconds(found.best.outcome.tpot.mean_s), f"a token by “{found.best.name}”, what to build with {held}")
    ]
    for name, words in ((LRU, "an LRU cache"), (STATIC, "a static placement with the host computing")):
        gain = gain_over(point, name)
        if gain is not None:
            facts.append(Fact(f"{gain.ratio:.2f} ×", f"its speed over {words}{_range(gain)}"))
    if found.gain is not None and found.rival is not None and found.rival.name not in (LRU, STATIC):
        kind = "unlearned" if found.best.policy.is_learned else "learned"
        facts.append(
            Fact(
                f"{found.gain.ratio:.2f} ×",
                f"its speed over the fastest {kind} policy (“{found.rival.name}”){_range(found.gain)}",
            )
        )
    return tuple(facts)


def _range(gain: Gain) -> str:
    return "" if gain.low is None else f", 95 % interval {gain.low:.2f} to {gain.high:.2f}"


def _command(context: StudyContext, shares: Sequence[float], tokens: int | None) -> str:
    """The commands that remake the points and the map."""
    settings = context.config.system
    common = f"forestage system compare --trace {context.trace_name}"
    if "next_use" not in context.left_out:
        common += f" --next-use {NEXT_USE_FILE}"
    if "learned" not in context.left_out:
        common += f" --predictor {NEXT_LAYER_FILE} --distance {context.config.lookahead}"
    common += f" --machine {settings.machine}"
    if settings.sizes_of is not None:
        common += f" --sizes-of {settings.sizes_of}"
    for name, value in host_settings(context).items():
        common += f" --{name.replace('_', '-')} {value:g}"

    def line(shares: Sequence[float], links: Sequence[float], tokens: int | None) -> str:
        return (
            common
            + "".join(f" --capacity-fraction {share:g}" for share in shares)
            + "".join(f" --link-gb-per-s {link:g}" for link in links)
            + ("" if tokens is None else f" --tokens {tokens}")
        )

    return "\n".join(
        (
            line(shares, (), tokens),
            line(sorted(settings.capacity_fractions), sorted(settings.link_gb_per_s), settings.map_tokens),
        )
    )


SUBJECT = Subject(
    Stage("system", "Whole system: policies, and the map of winners", run),
    section,
    title=TITLE,
    lacks=lacks,
    opens=True,
)
