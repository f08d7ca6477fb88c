"""``forestage cache simulate``: the hit rate of a cache of experts over a trace."""

from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from catalog import load_catalog
from catalog.errors import ForestageError
from staging.frequency import DEFAULT_SHIFT
from staging.results import CacheResult, Capacity
from staging.simulate import Policy, check_words, counted_events, run_policy
from staging.static import STATIC, run_static
from study.commands.command import refuse_unused
from study.commands.opening import open_batched, tell_warnings
from study.commands.options import EmaShiftOption, JsonOption, ModelOption, ScopeOption, TraceOption
from study.numbers import count as count_text
from study.numbers import percent, size
from study.output import emit
from traces import RoutingTrace
from traces.importers import read_residency, sniff_format
from traces.importers.formats import big_moe_on_edge

POLICIES: tuple[Policy, ...] = get_args(Policy)

MIB = 1 << 20
MOST_MIB = 1 << 40
"""One exbibyte in MiB; more would overflow the simulation's 64-bit sums."""


def simulate_cache(
    trace: TraceOption,
    capacity: Annotated[
        int | None,
        typer.Option(
            "--capacity", help="Experts that fit into the cache (with --scope layer: into the cache of each layer)"
        ),
    ] = None,
    capacity_mib: Annotated[
        float | None, typer.Option("--capacity-mib", help="Size of the cache in MiB, in place of --capacity")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            "--policy", help="lru, lfu, ema (decayed frequency) or belady (the bound); several times; default: all"
        ),
    ] = None,
    scope: ScopeOption = "layer",
    ema_shift: EmaShiftOption = DEFAULT_SHIFT,
    count: Annotated[
        str | None,
        typer.Option(
            "--count", help="What is counted: decode tokens, or all; default: decode where the trace has decode tokens"
        ),
    ] = None,
    prefill: Annotated[
        str | None,
        typer.Option(
            "--prefill",
            help="How a prompt runs: pass (all at once) or token (one by one); default: pass if there is decode",
        ),
    ] = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Simulate expert caches: a token's experts of a layer are looked up together, before any of them is loaded."""
    if (capacity is None) == (capacity_mib is None):
        raise ForestageError("give --capacity, in experts, or --capacity-mib: one of them")
    if capacity_mib is not None and not 0 < capacity_mib <= MOST_MIB:
        raise ForestageError(f"--capacity-mib {capacity_mib:g}: choose a number above 0 and up to {MOST_MIB}")
    check_words(scope=scope, count=count, prefill=prefill, policy=policy)
    if "ema" not in (policy or POLICIES):
        refuse_unused("no --policy ema is asked for; leave it out", ema_shift="--ema-shift")
    recorded, schedule = open_batched(trace, model)
    room = Capacity(capacity, scope=scope)  # type: ignore[arg-type]
    if capacity_mib is not None:
        sizes = expert_bytes(trace, recorded)
        room = Capacity(bytes=round(capacity_mib * MIB), expert_bytes=sizes, scope=scope)  # type: ignore[arg-type]
    room.check_within(recorded.layers, recorded.experts)
    if capacity_mib is not None and room.holds_everything(recorded.layers, recorded.experts):
        tell_warnings([f"--capacity-mib {capacity_mib:g}: every expert fits, so that only first uses miss"])
    events, counting = counted_events(recorded, count=count, prefill=prefill, schedule=schedule)  # type: ignore[arg-type]
    results = [
        run_policy(events, name, room, count=counting.count, ema_shift=ema_shift).result()  # type: ignore[arg-type]
        for name in dict.fromkeys(policy or POLICIES)
    ]
    static = run_static(events, room, count=counting.count).result()
    document = {
        "trace": trace.name,
        "counted": counting.sentence,
        "batch": None if schedule is None else schedule.config.model_dump(mode="json"),
        "results": [result.model_dump(mode="json") for result in results],
        "static": static.model_dump(mode="json"),
    }
    emit(document, as_json=as_json, render=lambda console: render(console, document, [static, *results]))


def expert_bytes(path: Path, trace: RoutingTrace) -> NDArray[np.int64]:
    """Bytes of one expert of each layer, i64 ``[layers]``: from the recording, else of the catalogue's model.

    Raises:
        ForestageError: if neither gives them.
    """
    if sniff_format(path) == big_moe_on_edge.IMPORTER.name:
        return read_residency(path).expert_bytes
    record = load_catalog().match_model(trace.metadata.model)
    if record is None:
        raise ForestageError(
            f"{path}: model '{trace.metadata.model}' is not in the catalogue, so the bytes of its experts are unknown; "
            "describe it with --config config.json, or give --capacity in experts"
        )
    return np.full(trace.layers, record.expert_bytes, np.int64)


def render(console: Console, document: dict[str, Any], results: list[CacheResult]) -> None:
    """Print one row per policy."""
    first = results[0]
    room = f"{first.capacity} experts" if first.capacity is not None else size(first.capacity_bytes or 0)
    where = "a layer" if first.scope == "layer" else "in all"
    console.print(
        f"[bold]{escape(document['trace'])}[/bold]: room for {room} {where}; counted: {document['counted']}",
        highlight=False,
        soft_wrap=True,
    )
    table = Table("policy", "hit rate", "lookups", "loads", box=None)
    for result in results:
        name = "most used, static (null)" if result.policy == STATIC else result.policy
        table.add_row(name, percent(result.hit_rate), count_text(result.lookups), count_text(result.loads))
    console.print(table, highlight=False)
