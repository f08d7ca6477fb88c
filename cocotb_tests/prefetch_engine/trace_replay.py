"""A recorded trace's test tokens through the whole engine: what ``forestage rtl replay`` runs."""

from pathlib import Path

import numpy as np
from pydantic import Field

from catalog.config import StrictModel
from catalog.errors import ForestageError
from catalog.progress import Progress
from cocotb_tests.prefetch_engine.replay import EngineReplayResult, Replay, replay_engine
from cocotb_tests.replay import first_tokens
from predictor.engine.environment import LayerTimes
from predictor.engine.events import EventKind, trace_events
from predictor.engine.limits import PrefetchEngineLimits
from predictor.engine.settings import LinkSettings, Mode, PrefetchEngineSettings
from predictor.row_network.predictor import RowNetworkPredictor
from predictor.st_moe.parameters import StMoeParameters
from predictor.st_moe.predictor import StMoePredictor
from predictor.st_moe.tables import StMoeTables
from rtl.prefetch.limits import named_experts, nets_for, table_limits
from staging.stager.limits import StagerSettings
from staging.transfer.timing import MemoryTiming
from traces import RoutingTrace, split
from traces.selection import select_sequences


class ReplayConfig(StrictModel):
    """How a trace is replayed; times are in cycles.

    Attributes:
        mode: who predicts.
        slots: sequences that run together.
        distance: layers ahead.
        places_per_layer: experts of each layer that the staging buffer keeps.
        replay_expert_bytes: that stand for an expert; they really move.
        share: beats that the link may ask for in 256 cycles.
        latency: of the memories.
        before_gate_cycles, expert_cycles, layer_cycles: of whoever runs the layers.
        threshold: least chance of a predicted expert, 65535 being certainty.
        waits: chance, in 256ths, that a side of any channel waits in a cycle.
        seed: of the waits.
        st_moe: of the tables, in mode ``TABLES``.
    """

    mode: Mode
    slots: int = Field(default=1, ge=1)
    distance: int = Field(default=1, ge=1)
    places_per_layer: int = Field(default=8, ge=1)
    replay_expert_bytes: int = Field(default=1024, ge=64)
    share: int = Field(default=256, ge=1, le=256)
    latency: int = Field(default=20, ge=1)
    before_gate_cycles: int = Field(default=160, ge=1)
    expert_cycles: int = Field(default=10, ge=0)
    layer_cycles: int = Field(default=0, ge=0)
    threshold: int = Field(default=1, ge=1)
    waits: int = Field(default=0, ge=0, lt=256)
    seed: int = Field(default=0, ge=0)
    st_moe: StMoeParameters = StMoeParameters()


class TraceReplayResult(EngineReplayResult):
    """As ``EngineReplayResult``, of a trace.

    Attributes:
        model: whose routing it is.
        synthetic: whether a generator made the trace.
        tokens: replayed, prompts included.
        steps: (token, layer) pairs of them.
        cycles_per_token: of the hardware's clock.
        tokens_per_s: simulated, comparison aside; ``checked_share`` of that speed is left with it.
        config, limits, settings: of the replay, and of the engine.
    """

    model: str
    synthetic: bool
    tokens: int
    steps: int
    cycles_per_token: float
    tokens_per_s: float
    checked_share: float
    config: ReplayConfig
    limits: PrefetchEngineLimits
    settings: PrefetchEngineSettings


def replay_trace(
    trace: RoutingTrace,
    tokens: int,
    config: ReplayConfig,
    *,
    first: int = 0,
    next_layer: RowNetworkPredictor | None = None,
    next_use: RowNetworkPredictor | None = None,
    progress: Progress | None = None,
    waves: Path | None = None,
    activity: Path | None = None,
    limits: PrefetchEngineLimits | None = None,
    tables: StMoeTables | None = None,
) -> TraceReplayResult:
    """Replay ``tokens`` tokens of the test sequences.

    Args:
        trace: split by ``traces.split``.
        tokens: how many, prompts included.
        config: how.
        first: of the test sequences' tokens, the first that is replayed; a sequence that it cuts begins there.
        next_layer, next_use: the learned predictor's heads, in mode ``LEARNED``; at least one.
        progress: called with (events done, events in all).
        waves: where to write the waves.
        activity: as of ``run_in_turn``.
        limits: of the engine; by default one that holds the trace's model.
        tables: as of ``profiled_tables``, in mode ``TABLES``; made where ``None``.

    Raises:
        ForestageError: the trace has too few test tokens, a predictor is not of its model, or hardware runs are not
            possible here.
        SimulationError: the simulation failed.
    """
    heads = {"next-layer": next_layer, "next-use": next_use}
    networks = {name: of.network for name, of in heads.items() if of is not None}
    if config.mode is Mode.LEARNED and not networks:
        raise ForestageError("mode learned: no predictor is given; give --predictor, --next-use or both")
    _, test = split(trace)
    stimulus = first_tokens(trace, test, first + tokens, behind=first)
    limits = limits or replay_limits(trace, config)
    rows, identity_rows = None, 0
    if next_layer is not None and next_layer.network.config.identities and stimulus.token_hash is not None:
        rows = next_layer.network.identity_index(np.asarray(stimulus.token_hash).astype(np.int64))
        identity_rows = len(next_layer.network.tables.identity_rows)
    events = trace_events(stimulus, slots=config.slots, rows=rows)
    learned = config.mode is Mode.LEARNED
    if config.mode is Mode.TABLES and tables is None:
        tables = profiled_tables(trace, config, limits)
    settings = PrefetchEngineSettings(
        mode=config.mode,
        layers=trace.layers,
        experts=trace.experts,
        top_k=trace.top_k,
        identity_rows=identity_rows if learned else 0,
        next_layer=next_layer is not None or not learned,
        next_use=next_use is not None or not learned,
        distance=config.distance,
        prefetched=min(limits.net.prefetched_max, trace.experts),
        threshold=config.threshold,
        stager=StagerSettings(shares=(config.places_per_layer,) * trace.layers),
        link=LinkSettings(
            expert_bytes=config.replay_expert_bytes,
            expert_stride=config.replay_expert_bytes,
            staging_stride=config.replay_expert_bytes,
            share=config.share,
        ),
    )
    result = replay_engine(
        Replay(
            limits=limits,
            settings=settings,
            events=events,
            times=LayerTimes(
                before_gate_cycles=config.before_gate_cycles,
                expert_cycles=config.expert_cycles,
                layer_cycles=config.layer_cycles,
            ),
            memory=MemoryTiming(latency=config.latency),
            networks=networks if learned else None,
            tables=tables,
            waits=config.waits,
            seed=config.seed,
        ),
        progress=None if progress is None else lambda done: progress(done, len(events.kind)),
        waves=waves,
        activity=activity,
    )
    return TraceReplayResult(
        **result.model_dump(),
        model=trace.metadata.model,
        synthetic=trace.metadata.synthetic,
        tokens=tokens,
        steps=int((events.kind == EventKind.GATE).sum()),
        cycles_per_token=result.cycles / tokens,
        tokens_per_s=tokens / result.running_s,
        checked_share=result.running_s / result.checked_s,
        config=config,
        limits=limits,
        settings=settings,
    )


def replay_limits(trace: RoutingTrace, config: ReplayConfig) -> PrefetchEngineLimits:
    """An engine that holds the trace's model; without nets where they are not asked, as it is simulated faster."""
    most = config.places_per_layer * trace.layers
    pins = config.slots * trace.top_k
    experts = 1 << (trace.experts - 1).bit_length()
    return PrefetchEngineLimits.parse(
        {
            "slots_max": config.slots,
            "layers_max": trace.layers,
            "experts_max": experts,
            "top_k_max": trace.top_k,
            "candidates_max": config.st_moe.candidates or trace.top_k,
            "learned": config.mode is Mode.LEARNED,
            "net": nets_for(layers=trace.layers, experts=experts),
            "places": most,
            "spare": max(pins, 32),
            "queue_depth": max(pins, 32),
        },
        origin=f"{trace.metadata.model}: an engine for it",
    )


def profiled_tables(
    trace: RoutingTrace, config: ReplayConfig, limits: PrefetchEngineLimits | None = None
) -> StMoeTables:
    """ST-MoE's tables, profiled on the training sequences, for an engine of these limits.

    No more experts are requested than a command to the stager names. ``limits`` as of ``replay_trace``.
    """
    limits = limits or replay_limits(trace, config)
    predictor = StMoePredictor.fit(
        select_sequences(trace, split(trace)[0]),
        lookahead=config.distance,
        **config.st_moe.model_dump(exclude_unset=True),
    )
    return predictor.tables(table_limits(limits), min(named_experts(limits), trace.experts))
