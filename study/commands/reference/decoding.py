"""``forestage reference decode``: the shipped model decodes with its experts offloaded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import typer
from pydantic import Field
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catalog.config import StrictModel
from catalog.errors import ForestageError, unknown_name
from gpu_reference.devices import check_device, default_device
from gpu_reference.files import SHIPPED_CHECKPOINT, SHIPPED_TRACE
from predictor.next_layer.predictor import NextLayerPredictor
from predictor.next_use.predictor import NextUsePredictor
from predictor.policies.parts import Predictors
from predictor.policies.plan import Missing
from predictor.policies.policy import Eviction, Policy, Prefetch
from staging.results import Scope
from study.commands.command import refuse_unused
from study.commands.options import JsonOption, ScopeOption
from study.commands.system.options import NextUseOption
from study.numbers import count, counted, percent, seconds, size
from study.output import emit, progress_bar
from study.system.parts import training_of
from traces import DECODE, RoutingTrace, split

_LRU, _FREQUENCY, _LEARNED = Eviction.LRU, Eviction.FREQUENCY, Eviction.LEARNED

POLICIES: dict[str, Policy] = {
    "lru": Policy(eviction=_LRU),
    "frequency": Policy(eviction=_FREQUENCY),
    "frequency-background": Policy(eviction=_FREQUENCY, background=True),
    "speculative": Policy(eviction=_LRU),
    "st-moe": Policy(eviction=_LRU, prefetch=Prefetch.ST_MOE),
    "activation": Policy(eviction=Eviction.ACTIVATION, prefetch=Prefetch.ACTIVATION),
    "learned-eviction": Policy(eviction=_LEARNED),
    "learned-prefetch": Policy(eviction=_LRU, prefetch=Prefetch.LEARNED),
    "learned": Policy(eviction=_LEARNED, prefetch=Prefetch.LEARNED, chance_scale=4),
    "perfect-prefetch": Policy(eviction=_LRU, prefetch=Prefetch.PERFECT),
    "belady": Policy(eviction=Eviction.BELADY, prefetch=Prefetch.PERFECT),
    "static": Policy(eviction=Eviction.STATIC, missing=Missing.HOST),
    "host-frequency": Policy(eviction=_FREQUENCY, missing=Missing.HOST, background=True),
    "host-learned": Policy(eviction=_LEARNED, missing=Missing.HOST, background=True),
}
"""What ``--policy`` names."""

SPECULATIVE = "speculative"

DOMAINS = ("code", "prose")


class DecodeOptions(StrictModel):
    """What is checked of the options."""

    scope: Scope
    format: Literal["fp32", "bf16", "int8", "mxfp4"]
    link_gb_per_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class DecodedText(StrictModel):
    """One sequence.

    Attributes:
        domain: of the prompt; ``None``: the user's own.
        prompt, text: what was given and what the model added.
        same_text: whether the run with all experts on the device added the same; ``None``: not checked.
        tokens: added.
        prefill_s: of the prompt's pass.
    """

    domain: str | None
    prompt: str
    text: str
    same_text: bool | None
    tokens: int
    prefill_s: float


class DecodeResult(StrictModel):
    """What the command prints.

    Attributes:
        policy: its name; ``settings`` says what it is.
        settings: as `predictor.policies.policy.Policy`.
        capacity, scope, places: experts held, of each layer or of all; and over all layers.
        format, device, link_gb_per_s: as asked.
        expert_bytes: of one expert.
        sequences: their texts.
        steps: decode steps that were timed.
        tokens_per_s, tpot_s, p50_s, p95_s: of these steps.
        resident_tpot_s: with all experts on the device; ``None``: not checked.
        hit_rate: of the decode steps' lookups.
        moved_bytes: over the link, in the decode steps.
        stall_s, host_wait_s: in which the device waited for an expert, or for the host's result.
        foresight_s: of the host, for asking and telling what is known ahead.
        counts: as `predictor.policies.counts.Counts`.
    """

    policy: str
    settings: Policy
    capacity: int
    scope: Scope
    places: int
    format: str
    device: str
    link_gb_per_s: float | None
    expert_bytes: int
    sequences: list[DecodedText]
    steps: int
    tokens_per_s: float | None
    tpot_s: float | None
    p50_s: float | None
    p95_s: float | None
    resident_tpot_s: float | None
    hit_rate: float
    moved_bytes: int
    stall_s: float
    host_wait_s: float
    foresight_s: float
    counts: dict[str, int]


def decode_command(
    policy: Annotated[str, typer.Option("--policy", help="One of " + ", ".join(POLICIES))],
    capacity: Annotated[int, typer.Option("--capacity", min=0, help="Experts that the device holds")],
    scope: ScopeOption = "layer",
    price: Annotated[
        int | None, typer.Option("--price", min=0, help="What a background load must be worth beyond what gives way")
    ] = None,
    format: Annotated[
        str, typer.Option("--format", help="Of the experts: fp32, bf16 (as stored), int8, mxfp4")
    ] = "bf16",
    prompt: Annotated[list[str] | None, typer.Option("--prompt", help="A text to go on with; several times")] = None,
    domain: Annotated[
        list[str] | None,
        typer.Option("--domain", help="Prompts of this domain, of the shipped trace's test part; default: both"),
    ] = None,
    sequences: Annotated[
        int | None, typer.Option("--sequences", min=1, help="How many prompts of each domain; default: 1")
    ] = None,
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="New tokens of a sequence, at most")] = 64,
    device: Annotated[str | None, typer.Option("--device", help="cpu or cuda; default: cuda if there is one")] = None,
    kernel: Annotated[str | None, typer.Option("--kernel", help="The expert kernel, by name")] = None,
    learned: Annotated[
        Path | None,
        typer.Option("--learned", help="A predictor file that `forestage predictor train` wrote, for prefetching"),
    ] = None,
    next_use: NextUseOption = None,
    link_gb_per_s: Annotated[
        float | None, typer.Option("--link-gb-per-s", help="A slower link than there is, GB/s")
    ] = None,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Leave out the run with all experts on the device")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Decode with the shipped model, its experts in host memory and some of them on the device."""
    if policy not in POLICIES:
        raise unknown_name("policy", policy, POLICIES)
    chosen = POLICIES[policy]
    if price is not None:
        chosen = Policy.parse_settings({**chosen.model_dump(), "price": price}, origin="--price")
    _refuse_what_has_no_effect(chosen, prompt)
    options = DecodeOptions.parse_settings(
        {"scope": scope, "format": format, "link_gb_per_s": link_gb_per_s}, origin="forestage reference decode"
    )
    where = device or default_device()
    check_device(where)
    result = _decode(
        policy, chosen, options, capacity, prompt, domain or list(DOMAINS), sequences or 1, tokens, where, kernel,
        _predictors(chosen, learned, next_use), link_gb_per_s, check=not no_check,
    )  # fmt: skip
    emit(result, as_json=as_json, render=lambda console: _render(console, result))


def _refuse_what_has_no_effect(policy: Policy, prompt: list[str] | None) -> None:
    if prompt:
        refuse_unused("--prompt gives the texts; leave it out", domain="--domain", sequences="--sequences")
    if not policy.background and policy.prefetch is Prefetch.NONE:
        refuse_unused("nothing moves but what a gate waits for; leave it out", price="--price")
    if policy.eviction is not Eviction.LEARNED:
        refuse_unused("the policy does not ask for the next use; leave it out", next_use="--next-use")
    if policy.prefetch is not Prefetch.LEARNED:
        refuse_unused("the policy asks no trained predictor for coming layers; leave it out", learned="--learned")


def _predictors(policy: Policy, learned: Path | None, next_use: Path | None) -> Predictors:
    for needed, path, option, command in (
        (policy.eviction is Eviction.LEARNED, next_use, "--next-use", "train-next-use"),
        (policy.prefetch is Prefetch.LEARNED, learned, "--learned", "train"),
    ):
        if needed and path is None:
            raise ForestageError(
                f"{option}: the policy needs a trained predictor; give a file that `forestage predictor {command}` "
                "writes for the shipped trace"
            )
    return Predictors(
        next_use=None if next_use is None else NextUsePredictor.load(next_use),
        next_layer=None if learned is None else NextLayerPredictor.load(learned),
    )


def _decode(
    name: str,
    policy: Policy,
    options: DecodeOptions,
    capacity: int,
    prompts: list[str] | None,
    domains: list[str],
    sequences: int,
    tokens: int,
    device: str,
    kernel: str | None,
    predictors: Predictors,
    link_gb_per_s: float | None,
    *,
    check: bool,
) -> DecodeResult:
    from gpu_reference.offload.decoding import Decoding, decode
    from gpu_reference.offload.generate import GeneratedSequence
    from gpu_reference.small_moe import END_OF_TEXT_ID, load_tokenizer
    from gpu_reference.trace_tokens import token_hashes

    recorded = RoutingTrace.load(SHIPPED_TRACE)
    most = recorded.experts if options.scope == "layer" else recorded.experts * recorded.layers
    if capacity > most:
        raise ForestageError(f"--capacity {capacity}: choose 0 to {most} with --scope {options.scope}")
    tokenizer = load_tokenizer(SHIPPED_CHECKPOINT)
    if prompts:
        texts: list[tuple[str | None, list[int]]] = [(None, tokenizer.encode(text).ids) for text in prompts]
    else:
        texts = [pair for domain in domains for pair in _recorded_prompts(recorded, tokenizer, domain, sequences)]
    training = training_of(
        recorded,
        predictors,
        tables_ahead=1 if policy.prefetch is Prefetch.ST_MOE else None,
        activation=Eviction.ACTIVATION is policy.eviction,
    )
    with progress_bar(f"decoding, {name}") as progress:
        found = decode(
            SHIPPED_CHECKPOINT,
            [ids for _, ids in texts],
            Decoding(
                policy=policy,
                speculate=name == SPECULATIVE,
                capacity=capacity,
                scope=options.scope,
                format=options.format,
                device=device,
                kernel=kernel,
                link_gb_per_s=link_gb_per_s,
                new_tokens=tokens,
                check=check,
            ),
            predictors=training.predictors,
            uses=training.uses,
            identities=token_hashes(tokenizer),
            end=END_OF_TEXT_ID,
            progress=progress,
        )
    step_s = np.concatenate([sequence.step_s for sequence in found.sequences])
    has_steps = len(step_s) > 0
    checked: Sequence[GeneratedSequence | None] = found.resident or [None] * len(found.sequences)
    statistics = found.statistics
    return DecodeResult(
        policy=name,
        settings=policy,
        capacity=capacity,
        scope=options.scope,
        places=found.places,
        format=options.format,
        device=device,
        link_gb_per_s=link_gb_per_s,
        expert_bytes=found.expert_bytes,
        sequences=[
            DecodedText(
                domain=domain,
                prompt=tokenizer.decode(sequence.prompt),
                text=tokenizer.decode(sequence.added),
                same_text=None if other is None else other.added == sequence.added,
                tokens=len(sequence.added),
                prefill_s=sequence.prefill_s,
            )
            for (domain, _), sequence, other in zip(texts, found.sequences, checked, strict=True)
        ],
        steps=len(step_s),
        tokens_per_s=len(step_s) / float(step_s.sum()) if has_steps else None,
        tpot_s=float(step_s.mean()) if has_steps else None,
        p50_s=float(np.percentile(step_s, 50)) if has_steps else None,
        p95_s=float(np.percentile(step_s, 95)) if has_steps else None,
        resident_tpot_s=_mean_s(found.resident),
        hit_rate=statistics.hit_rate,
        moved_bytes=statistics.moved_bytes,
        stall_s=statistics.stall_s,
        host_wait_s=statistics.host_wait_s,
        foresight_s=statistics.foresight_s,
        counts=vars(statistics.counts),
    )


def _mean_s(sequences: Any) -> float | None:
    if not sequences:
        return None
    step_s = np.concatenate([sequence.step_s for sequence in sequences])
    return float(step_s.mean()) if len(step_s) else None


def _recorded_prompts(
    recorded: RoutingTrace, tokenizer: Any, domain: str, sequences: int
) -> list[tuple[str | None, list[int]]]:
    """The prompts of the first test sequences of ``domain``.

    Raises:
        ForestageError: for a domain that the trace does not have, or more sequences than it has.
    """
    from gpu_reference.trace_tokens import tokens_of

    if domain not in recorded.domains:
        raise unknown_name("domain", domain, sorted(set(recorded.domains)))
    _, test = split(recorded)
    mine = [int(index) for index in test if recorded.domains[index] == domain]
    if sequences > len(mine):
        raise ForestageError(f"--sequences {sequences}: the shipped trace has {len(mine)} test sequences of {domain}")
    ids, phase = tokens_of(recorded, tokenizer), np.asarray(recorded.phase)
    return [
        (domain, ids[span][phase[span] != DECODE].tolist())
        for span in (recorded.sequence_slice(index) for index in mine[:sequences])
    ]


def _render(console: Console, result: DecodeResult) -> None:
    """The texts, then time and counts."""
    for sequence in result.sequences:
        console.print(f"[dim]{escape(sequence.prompt)}[/dim]{escape(sequence.text)}", highlight=False, soft_wrap=True)
        same = {
            True: "the same text as with all experts on the device",
            False: "NOT the text of the run with all experts on the device",
            None: "not compared with a run with all experts on the device",
        }[sequence.same_text]
        console.print(f"— {counted(sequence.tokens, 'token')}, {same}\n", style="dim", highlight=False)
    table = Table(box=None, show_header=False)
    held = f"{result.capacity} {'of each layer' if result.scope == 'layer' else 'of all'}"
    table.add_row("policy; experts held", f"{result.policy}; {held} ({count(result.places)} in all)")
    if result.tpot_s is not None and result.tokens_per_s is not None:
        assert result.p50_s is not None
        assert result.p95_s is not None
        table.add_row("tokens a second", f"{result.tokens_per_s:.1f}")
        table.add_row(
            "time per token, mean / p50 / p95", " / ".join(map(seconds, (result.tpot_s, result.p50_s, result.p95_s)))
        )
    if result.resident_tpot_s is not None:
        table.add_row("  with all experts on the device, mean", seconds(result.resident_tpot_s))
    table.add_row("hit rate", percent(result.hit_rate))
    of = result.counts
    table.add_row("experts fetched / computed by the host", f"{count(of['fetched'])} / {count(of['computed'])}")
    table.add_row("moved ahead / of these used", f"{count(of['ahead'])} / {count(of['useful'])}")
    table.add_row("bytes over the link", size(result.moved_bytes))
    table.add_row("stalls: for an expert / for the host", f"{seconds(result.stall_s)} / {seconds(result.host_wait_s)}")
    table.add_row("asking and telling what is known ahead", seconds(result.foresight_s))
    console.print(table, highlight=False)
