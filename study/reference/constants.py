"""The constants of a measured row: from the micro-measurements of its own record, none from a row that was decoded.

A time is the median over its runs. Where a kind was timed several ways the one is taken that the program has: pieces
launched one after the other, by the host's clock; for the gate, a single piece; for copies, pieces queued after each
other, by the device's clock where it has one.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from catalog.errors import ForestageError
from gpu_reference.decoder.step import context_buckets
from gpu_reference.offload.link import CHUNK_BYTES
from gpu_reference.records import MeasurementRecord
from gpu_reference.records.decode import Decode
from gpu_reference.records.micro import Micro, MicroKind, Setting
from perfmodel.measured import CopyLine, Curve, Grid, HostConstants, LayerConstants, MeasuredConstants
from predictor.policies.plan import Missing
from predictor.policies.policy import Eviction, Policy, Prefetch

ACTIVATION_BYTES = 2
"""Of one element that goes to the host and back (BF16)."""

TO_GATE, SHARED, LOGITS = "to_gate", "shared", "logits"
"""Fixed parts, as `MicroKind.FIXED_PART` names them."""

NOTHING_TOLD = "recency"
"""The decision of a policy to which nothing is told ahead; see `gpu_reference.measuring.decisions`."""

RESIDENT, OFFLOADED = "resident", "offloaded"
"""Runtimes, as `MicroKind.LAYER_OVERHEAD` names them."""


def constants_of(record: MeasurementRecord, row: Decode, layers: int) -> MeasuredConstants:
    """What ``record`` says of the machine, for the way in which ``row`` was decoded.

    Args:
        record: the row's own.
        row: of ``record.decode``.
        layers: of the trace: all of the model's that have experts.

    Raises:
        ForestageError: naming kind and settings of a micro-measurement that is missing.
    """
    measured = _Measured(record)
    experts = measured.curve(
        MicroKind.EXPERT,
        "tokens",
        size=row.regimen.expert_bytes,
        format=row.regimen.format,
        kernel=row.kernel,
        launched="eager",
    )
    everywhere = row.places >= layers * record.model.experts
    # The floor of all rows runs without a stager.
    runtime = RESIDENT if everywhere and row.policy.eviction is Eviction.STATIC else OFFLOADED
    telling_s = 0.0
    if runtime == OFFLOADED:
        telling_s = max(0.0, measured.decision_s(_told(row.policy)) - measured.decision_s(NOTHING_TOLD))
    runtime_s, runtime_expert_s = _runtime(measured, runtime)
    throttle = row.regimen.throttle_gb_per_s
    buckets, of_layers = _layers(measured, row.mode, layers)
    return MeasuredConstants(
        model=record.model.name,
        expert_bytes=row.regimen.expert_bytes,
        chunk_bytes=CHUNK_BYTES,
        copy=measured.copies(MicroKind.COPY_TO_DEVICE, _by_device),
        throttle_bytes_per_s=None if throttle is None else throttle * 1e9,
        expert_s=experts,
        expert_launch_s=experts.points[0][1],
        layers=of_layers,
        end_s=measured.curve(MicroKind.FIXED_PART, "batch", part=LOGITS),
        buckets=buckets,
        gate_s=measured.curve(MicroKind.GATE_ROUND_TRIP, "ids", _alone),
        runtime_s=runtime_s,
        runtime_expert_s=runtime_expert_s,
        foresight_s=telling_s + _predicting_s(measured, row),
        begin_s=0.0 if row.policy.prefetch is Prefetch.NONE else telling_s + _predicting_s(measured, row),
        host=None if everywhere or row.policy.missing is Missing.FETCH else _host(measured, row),
    )


# --- ways of timing: of two rows that differ in nothing else, the one of the larger key is taken ---

Way = Callable[[Micro], tuple[bool, int]]


def _launched(micro: Micro) -> tuple[bool, int]:
    """Many, launched one after the other, by the host's clock."""
    return micro.settings["clock"] == "host", int(micro.settings["queued"])


def _alone(micro: Micro) -> tuple[bool, int]:
    """One, by the host's clock."""
    return micro.settings["clock"] == "host", -int(micro.settings["queued"])


def _by_device(micro: Micro) -> tuple[bool, int]:
    """Many, queued after each other, by the device's clock."""
    return micro.settings["clock"] == "device", int(micro.settings["queued"])


@dataclass(frozen=True)
class _Measured:
    """The micro-measurements of a record, as they are asked for; what is missing raises ForestageError."""

    record: MeasurementRecord

    def rows(self, kind: MicroKind, *, size: int | None = None, **settings: Setting) -> tuple[Micro, ...]:
        """Those of ``kind`` with ``settings`` (and bytes ``size``), at least one."""
        of_kind = self.record.of_kind(kind, **settings)
        found = tuple(micro for micro in of_kind if size is None or micro.bytes == size)
        if not found:
            raise missing(kind, **settings, **({} if size is None else {"bytes": size}))
        return found

    def curve(
        self, kind: MicroKind, by: str, way: Way = _launched, *, size: int | None = None, **settings: Setting
    ) -> Curve:
        """Times by the setting ``by``."""
        return curve_of(f"{kind.value}: {by}", self.rows(kind, size=size, **settings), by, way)

    def copies(self, kind: MicroKind, way: Way) -> CopyLine:
        """The line through the copies of pinned memory on one stream (a CPU pins none)."""
        memory = "pageable" if self.record.device == "cpu" else "pinned"
        points = curve_of(kind.value, self.rows(kind, memory=memory, streams=1), "copy_bytes", way).points
        return CopyLine.through(kind.value, points)

    def decision_s(self, told: str) -> float:
        """The stager's commands for one layer of one step."""
        return best(self.rows(MicroKind.DECISION, policy=told), _launched)


def missing(kind: MicroKind, **settings: Setting) -> ForestageError:
    """The line about a micro-measurement that is not in a record."""
    listed = ", ".join(f"{name} {value}" for name, value in settings.items())
    return ForestageError(f"record: micro: no {kind.value} with {listed}; measure again, with its section")


def best(rows: Iterable[Micro], way: Way) -> float:
    """The median time of the row that was timed most in this way, s."""
    return max(rows, key=way).seconds.median


def curve_of(what: str, rows: Iterable[Micro], by: str, way: Way = _launched) -> Curve:
    """Median times by the setting ``by``."""
    groups: dict[int, list[Micro]] = {}
    for micro in rows:
        groups.setdefault(int(micro.settings[by]), []).append(micro)
    return Curve(what, tuple((number, best(group, way)) for number, group in groups.items()))


# --- a layer beside its routed experts ---


def _layers(measured: _Measured, mode: str, layers: int) -> tuple[tuple[int, ...], tuple[LayerConstants, ...]]:
    """Buckets of the cache, and the constants of each layer; layers measured together share theirs."""
    kind = MicroKind.FIXED_PART
    rows = measured.rows(kind, part=TO_GATE, launched=mode)
    buckets = context_buckets(max(int(micro.settings["context"]) for micro in rows))
    shared = measured.record.of_kind(kind, part=SHARED)
    made: dict[str, LayerConstants] = {}
    group_of: dict[int, str] = {}
    for group in dict.fromkeys(str(micro.settings["layers"]) for micro in rows):
        group_of.update(dict.fromkeys(map(int, group.split(",")), group))
        made[group] = LayerConstants(
            fixed_s=_to_gate([micro for micro in rows if micro.settings["layers"] == group], group, buckets),
            shared_s=_shared([micro for micro in shared if micro.settings["layers"] == group], group),
        )
    for layer in range(layers):
        if layer not in group_of:
            raise missing(kind, part=TO_GATE, layers=layer, launched=mode)
    return buckets, tuple(made[group_of[layer]] for layer in range(layers))


def _to_gate(rows: list[Micro], group: str, buckets: tuple[int, ...]) -> Grid:
    """By batch and rows of the cache, of layers that were measured together; of a bucket its fullest cache counts."""
    what = f"fixed_part {TO_GATE} of layers {group}"
    batches: dict[int, dict[int, list[Micro]]] = {}
    for micro in rows:
        bucket = next(bucket for bucket in buckets if bucket >= int(micro.settings["context"]))
        batches.setdefault(int(micro.settings["batch"]), {}).setdefault(bucket, []).append(micro)
    curves = []
    for batch, of_batch in batches.items():
        points = []
        for bucket, of_bucket in of_batch.items():
            fullest = max(int(micro.settings["context"]) for micro in of_bucket)
            kept = [micro for micro in of_bucket if micro.settings["context"] == fullest]
            points.append((bucket, best(kept, _launched)))
        curves.append((batch, Curve(f"{what}: context", tuple(points))))
    return Grid(f"{what}: batch", tuple(curves))


def _shared(rows: list[Micro], group: str) -> Curve | None:
    """Shared experts of such layers, by batch."""
    return curve_of(f"fixed_part {SHARED} of layers {group}: batch", rows, "batch") if rows else None


# --- what the host does ---


def _runtime(measured: _Measured, runtime: str) -> tuple[Curve, float]:
    """The runtime's own work: by tokens, where all choose the same experts; and more for each further expert.

    The further ones are those of the largest batch that was measured with both.
    """
    kind, top_k = MicroKind.LAYER_OVERHEAD, measured.record.model.top_k
    same = measured.curve(kind, "tokens", runtime=runtime, missing=0, top_k=top_k, needed=top_k)
    others = [
        micro
        for micro in measured.rows(kind, runtime=runtime, missing=0, top_k=top_k)
        if int(micro.settings["needed"]) > top_k
    ]
    if not others:
        return same, 0.0
    largest = max(others, key=lambda micro: (int(micro.settings["tokens"]), int(micro.settings["needed"])))
    further = int(largest.settings["needed"]) - top_k
    more_s = largest.seconds.median - same.at(int(largest.settings["tokens"]))
    return same, max(0.0, more_s / further)


def _told(policy: Policy) -> str:
    """The decision that was measured with as much told as ``policy`` tells; see `gpu_reference.measuring.decisions`."""
    if policy.background:
        return "values, prefetch and background loads"
    if policy.prefetch is not Prefetch.NONE:
        return "values and prefetch"
    return NOTHING_TOLD if policy.eviction in (Eviction.LRU, Eviction.STATIC) else "values"


def _predicting_s(measured: _Measured, row: Decode) -> float:
    """What asking the trained predictors takes for a layer of a step, where they are asked while decoding."""
    asked = {
        "next-use": row.policy.eviction is Eviction.LEARNED,
        "next-layer": row.policy.prefetch is Prefetch.LEARNED,
    }
    if row.foresight != "online":
        return 0.0
    kind = MicroKind.PREDICTION_HOST
    each = [best(measured.rows(kind, network=network), _launched) for network, is_asked in asked.items() if is_asked]
    return row.part.batch * sum(each)


def _host(measured: _Measured, row: Decode) -> HostConstants:
    """The processor with the row's threads; its inputs and results are copies that nothing else is queued with."""
    form, size = row.regimen.format, row.regimen.expert_bytes
    alone = _by_threads(measured.rows(MicroKind.HOST_EXPERT, size=size, format=form), row.host_threads)
    beside = _by_threads(
        measured.rows(MicroKind.HOST_EXPERT_WHILE_COPYING, size=size, what="expert", format=form), row.host_threads
    )
    tokens, with_copies = beside.points[0]
    activations = row.part.batch * measured.record.model.hidden * ACTIVATION_BYTES
    return HostConstants(
        expert_s=alone,
        while_copying=max(1.0, with_copies / alone.at(tokens)),
        before_s=measured.copies(MicroKind.COPY_FROM_DEVICE, _alone).at(activations),
        after_s=measured.copies(MicroKind.COPY_TO_DEVICE, _alone).at(activations),
    )


def _by_threads(rows: tuple[Micro, ...], threads: int) -> Curve:
    """Times by tokens with so many threads: linear between the numbers of threads that were measured."""
    what = rows[0].kind.value
    groups: dict[int, list[Micro]] = {}
    for micro in rows:
        groups.setdefault(int(micro.settings["threads"]), []).append(micro)
    curves = {number: curve_of(f"{what}: tokens", group, "tokens") for number, group in groups.items()}
    grid = Grid(f"{what}: threads", tuple(curves.items()))
    everywhere = set.intersection(*({tokens for tokens, _ in curve.points} for curve in curves.values()))
    return Curve(f"{what}: tokens", tuple((tokens, grid.at(threads, tokens)) for tokens in everywhere))
