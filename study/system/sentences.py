"""What the report says of a system in sentences: the answer, what brings it, and where prediction does not pay."""

from collections.abc import Callable, Sequence
from typing import Any

from catalog import load_catalog
from perfmodel.comparison import Comparison, Line
from predictor.policies.policy import Eviction, Prefetch
from predictor.policies.rows import FETCH, HOST, LRU
from study.blocks import Fact
from study.numbers import count, layers_text, seconds, size, tokens_of
from study.stages import StudyContext
from study.system.answer import Verdict, advice, gain_over, overtakes
from study.system.machine import assumed, host_at, host_memory_of, link_of
from study.system.words import RIVALS, gains_told, in_words, listed, range_text, ratio_text, share_text


def answer(context: StudyContext, point: Comparison) -> str:
    """What to build at one point, and how much faster it is than each rival."""
    found = advice(point)
    best, gains = found.best, gains_told(point)
    verdict = {
        Verdict.PAYS: "Prediction pays here.",
        Verdict.UNCLEAR: "Whether prediction pays here is not clear: the interval holds 1.",
        Verdict.DOES_NOT: "Prediction does not pay here.",
        None: "Nothing learned was compared.",
    }[found.verdict]
    return (
        f"On this traffic, on {machine(context, point)}, with {share_text(point.config.capacity_fraction)} of the "
        f"experts held, build “{best.name}”: it {in_words(best)}. A token takes {seconds(best.outcome.tpot.mean_s)}"
        + (f", {listed(gains)}" if gains else "")
        + f" (95 % intervals over sequences). {verdict}"
        + _silicon(context, best)
    )


def machine(context: StudyContext, point: Comparison) -> str:
    """The machine with its link and its host, and which of them are assumptions."""
    host = host_at(point)
    text = f"{point.config.machine} with a host link of {point.link_gb_per_s:g} GB/s"
    if host is None or host.flops_per_s is None:
        return text
    return (
        f"{text} and a host that reads {host.bytes_per_s / 1e9:.3g} GB/s and computes {host.flops_per_s / 1e12:.2g} "
        "TFLOPS" + (" (assumption: a desktop's)" if assumed(context) else "")
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


def what_each_brings(point: Comparison) -> str:
    """A sentence: what prefetch alone, eviction alone and both bring over LRU where what is missing is fetched."""
    told = {
        "ST-MoE prefetch": "prefetch by ST-MoE's tables alone",
        "learned prefetch": "learned prefetch alone",
        "perfect prefetch": "perfect prefetch alone (an oracle)",
        "learned eviction": "learned eviction alone",
        "learned": "both, with background loads where they pay",
    }
    time_s = {line.name: line.outcome.tpot.mean_s for line in point.lines}
    brings = [f"{words} {time_s[LRU] / time_s[name]:.2f}\u202f×" for name, words in told.items() if name in time_s]
    return f"Where a missing expert is fetched, over LRU: {listed(brings)}." if brings else ""


def where_it_does_not_pay(by_link: Sequence[Comparison], by_host: Sequence[Comparison]) -> str:
    """Sentences: at which points of the two maps prediction pays, and where the host begins and ceases to compute."""
    if all(advice(cell).verdict is None for cell in (*by_link, *by_host)):
        pays = "Without learned predictors the maps show which unlearned policy wins where."
    else:
        pays = (
            f"By link, {_verdicts(by_link, link_of, 'over {} GB/s')}. "
            f"By host memory, {_verdicts(by_host, host_memory_of, 'beside {} GB/s')}."
        )
    if not any(cell.line(cell.recommended).family == HOST for cell in (*by_link, *by_host)):
        return f"{pays} Fetching what is missing beats letting the host compute it everywhere on both maps."
    by_link_turns = _break_even(by_link, FETCH, link_of, "link")
    return f"{pays} {by_link_turns} {_break_even(by_host, HOST, host_memory_of, 'host memory')}"


def _verdicts(cells: Sequence[Comparison], value: Callable[[Comparison], float], where: str) -> str:
    """At how many points prediction pays, and at which it does not."""
    verdicts = {(cell.config.capacity_fraction or 0.0, value(cell)): advice(cell).verdict for cell in cells}
    at = {kind: sorted(place for place, verdict in verdicts.items() if verdict is kind) for kind in Verdict}
    paying = len(at[Verdict.PAYS])
    text = (
        f"prediction pays at {'all' if paying == len(verdicts) else f'{paying} of'} {len(verdicts)} points of the map"
    )
    if at[Verdict.UNCLEAR]:
        text += f", makes no clear difference at {len(at[Verdict.UNCLEAR])} ({_places(at[Verdict.UNCLEAR], where)})"
    if at[Verdict.DOES_NOT]:
        text += (
            f", and loses to an unlearned policy at {len(at[Verdict.DOES_NOT])} "
            f"({_places(at[Verdict.DOES_NOT], where)})"
        )
    return text


def _places(places: Sequence[tuple[float, float]], where: str) -> str:
    """``50 % held over 64, 128 GB/s; 75 % held over 512 GB/s``; ``where`` says how values are written."""
    values: dict[float, list[str]] = {}
    for share, value in places:
        values.setdefault(share, []).append(f"{value:g}")
    return "; ".join(f"{share_text(share)} held {where.format(', '.join(those))}" for share, those in values.items())


def _break_even(cells: Sequence[Comparison], family: str, value: Callable[[Comparison], float], resource: str) -> str:
    """From which ``value`` on the recommended rows are of ``family``, by share held."""
    shares = sorted({cell.config.capacity_fraction or 0.0 for cell in cells})
    least = min(value(cell) for cell in cells)
    from_: dict[float, list[str]] = {}
    never = []
    for share in shares:
        turn = overtakes([cell for cell in cells if cell.config.capacity_fraction == share], family, value)
        if turn is None:
            never.append(share_text(share))
        else:
            from_.setdefault(turn, []).append(share_text(share))
    beats, at = {
        FETCH: ("Fetching what is missing beats letting the host compute it", "over"),
        HOST: ("Letting the host compute what is missing beats fetching it", "beside"),
    }[family]
    if not from_:
        return f"{beats} {at} no {resource} of the map."
    if not never and list(from_) == [least]:
        return f"{beats} {at} every {resource} of the map."
    if not never and len(from_) == 1:
        return f"{beats} from a {resource} of {next(iter(from_)):g} GB/s on, whatever share is held."
    told = [f"{turn:g} GB/s on with {listed(held)} held" for turn, held in sorted(from_.items())]
    return f"{beats} from a {resource} of {listed(told)}" + (f"; nowhere with {listed(never)} held." if never else ".")


def how_it_was_measured(context: StudyContext, point: Comparison, result: dict[str, Any]) -> str:
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
        f"{count(result['map_tuning_tokens'])} for the maps). The link and the host's processor share the host's "
        "memory: while the link reads, the processor has only the rest, and no link moves more than the memory reads. "
        "ST-MoE's tables look one layer ahead. No prediction moves an expert at zero time or zero bytes; the prefetch "
        "engine's own cycles, kernel launches and norms take no time, and kernels are rooflines."
    )


def facts(point: Comparison) -> tuple[Fact, ...]:
    """Headline figures: the recommended row over LRU, over the static placement, and over its rival."""
    found = advice(point)
    held = f"{share_text(point.config.capacity_fraction)} of the experts held"
    told = [Fact(seconds(found.best.outcome.tpot.mean_s), f"a token by “{found.best.name}”, what to build with {held}")]
    over = {name: words.split(" that ")[0] for name, words in RIVALS.items()}
    if found.rival is not None and found.rival.name not in over:
        kind = "unlearned" if found.best.policy.is_learned else "learned"
        over[found.rival.name] = f"the fastest {kind} policy (“{found.rival.name}”)"
    for name, words in over.items():
        gain = gain_over(point, name)
        if gain is not None:
            range_ = range_text(gain)
            told.append(
                Fact(ratio_text(gain), f"its speed over {words}" + (f", 95 % interval {range_}" if range_ else ""))
            )
    return tuple(told)
