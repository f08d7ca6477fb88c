"""Small prefetch engines for runs under Verilator: what they are generated with, set to and told."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from catalog.errors import ForestageError
from cocotb_tests.build import require_tools
from cocotb_tests.prefetch_engine.learned_memory import SPOILED, LearnedMemory
from cocotb_tests.prefetch_engine.replay import Replay
from predictor.engine.environment import LayerTimes
from predictor.engine.events import EventArrays, Gate, Release, Token, event_arrays, trace_events
from predictor.engine.limits import BEAT_BYTES, HeadsLimits, PrefetchEngineLimits
from predictor.engine.settings import Mode, PrefetchEngineSettings
from predictor.row_network.limits import HeadLimits
from predictor.st_moe.parameters import EngineConfiguration
from predictor.st_moe.tables import StMoeTables
from rtl.prefetch.limits import table_limits
from staging.stager.limits import StagerSettings
from staging.transfer.timing import MemoryTiming
from tests.learned_samples import identified_trace, random_next_use, random_predictor
from traces import RoutingTrace

TOP_K, SLOTS, CANDIDATES = 2, 2, 2
PLAIN = {"identities": 0, "identity_rows": 0, "ngram_tables": (), "continuation_windows": ()}


def skip_without_tools() -> None:
    """Where hardware cannot be simulated."""
    try:
        require_tools()
    except ForestageError as error:
        pytest.skip(str(error))


def small_limits(*, layers: int, experts: int, row_words: int, stager_lanes: int) -> PrefetchEngineLimits:
    """Two sequences, top-2, both heads of 64 hidden units."""
    head: dict[str, Any] = {"hidden": 64, "row_words": row_words, "previous": 2, "decays": 3, "matched": 8}
    return PrefetchEngineLimits(
        slots_max=SLOTS,
        layers_max=layers,
        experts_max=experts,
        top_k_max=TOP_K,
        candidates_max=CANDIDATES,
        places=60,
        spare=20,
        queue_depth=8,
        stager_lanes=stager_lanes,
        net=HeadsLimits(
            lanes=64,
            prefetched_max=8,
            next_layer=HeadLimits(**head, identities=2),
            next_use=HeadLimits(**head, identities=1, questions=2),
        ),
    )


SMALL = small_limits(layers=4, experts=8, row_words=2048, stager_lanes=4)
"""For a model of 4 layers of 8 experts, as ``Model()`` is."""


class Model:
    """A model of ``layers`` of ``experts``, and what an engine with room for it is set to and told."""

    def __init__(self, *, layers: int = 4, experts: int = 8) -> None:
        self.layers, self.experts = layers, experts
        self.shape: dict[str, Any] = {"layers": layers, "experts": experts, "top_k": TOP_K}

    def settings(self, mode: Mode, *, share: int = 3, **changes: Any) -> PrefetchEngineSettings:
        """Each layer may keep ``share`` experts."""
        stager: dict[str, Any] = {"shares": (share,) * self.layers}
        if mode is Mode.LEARNED:
            stager |= {"chance_scale": 2, "price": 20_000, "by_recency": False}
        return PrefetchEngineSettings(
            **{
                "mode": mode,
                **self.shape,
                "prefetched": 3,
                "threshold": 9000,
                "stager": StagerSettings(**stager),
                **changes,
            }
        )

    def random_list(self, tokens: int, slots: int, seed: int = 0) -> list[Any]:
        """Gates at random."""
        generator = np.random.default_rng(seed)
        together = [(slot, slot == 0, slot == slots - 1) for slot in range(slots)]
        events: list[Any] = []
        for token in range(tokens):
            events += [Token(slot, first, last, token == 0) for slot, first, last in together]
            for layer in range(self.layers):
                for slot, first, last in together:
                    chosen = generator.choice(self.experts, TOP_K, replace=False)
                    events.append(Gate(slot, layer, tuple(chosen.tolist()), first, last))
                events += [Release(slot, layer, first, last) for slot, first, last in together]
        return events

    def random_events(self, tokens: int, slots: int, seed: int = 0) -> EventArrays:
        """Gates at random, as arrays."""
        return event_arrays(self.random_list(tokens, slots, seed), TOP_K)

    def tables(self, limits: PrefetchEngineLimits) -> StMoeTables:
        """Of random candidates."""
        generator = np.random.default_rng(1)
        configuration = EngineConfiguration(**self.shape, candidates=CANDIDATES, issue_limit=min(8, self.experts))
        candidates = np.array(
            [
                [generator.choice(self.experts, CANDIDATES, replace=False) for _ in range(self.experts)]
                for _ in range(self.layers)
            ],
            np.int16,
        )
        confidences = generator.integers(0, 4, candidates.shape).astype(np.int8)
        return StMoeTables(table_limits(limits), configuration, candidates, confidences)

    def trace(self, *, shared: int = 0, **changes: Any) -> RoutingTrace:
        """Correlated routing with identities; ``shared``: every so many tokens the first two sequences choose alike."""
        found = identified_trace(**{"seed": 0, "unrecorded": 0.05, **changes}, **self.shape)
        if not shared:
            return found
        ids = np.array(found.expert_ids)
        first, second, end = (int(at) for at in found.sequence_offsets[:3])
        length = min(second - first, end - second)
        ids[second : second + length : shared] = ids[first : first + length : shared]
        return replace(found, expert_ids=ids)

    def learned(
        self,
        trace: RoutingTrace | None = None,
        *,
        slots: int = SLOTS,
        share: int = 3,
        distance: int = 1,
        plain: bool = False,
    ) -> dict[str, Any]:
        """A replay's settings, events, networks and times in mode ``LEARNED``; ``plain``: no identities, no texts."""
        config: dict[str, Any] = PLAIN if plain else {}
        networks = {
            "next-layer": random_predictor(lookahead=distance, **self.shape, **config).network,
            "next-use": random_next_use(np.random.default_rng(0), ranked=True, **self.shape, **config).network,
        }
        of = self.trace() if trace is None else trace
        rows = None if plain else networks["next-layer"].identity_index(np.asarray(of.token_hash).astype(np.int64))
        chosen = self.settings(Mode.LEARNED, share=share, distance=distance, identity_rows=0 if plain else 6)
        return {
            "settings": chosen,
            "events": trace_events(of, slots=slots, rows=rows),
            "times": LayerTimes(before_gate_cycles=20, layer_cycles=150),
            "networks": networks,
        }


def with_a_bad_copy(memory: LearnedMemory) -> LearnedMemory:
    """Elsewhere, the first section with another last bit."""
    begin = memory.sections[0]
    size = BEAT_BYTES
    while begin + size in memory.words and begin + size not in memory.sections:
        size += BEAT_BYTES
    copy = {SPOILED + at: memory.words[begin + at] for at in range(0, size, BEAT_BYTES)}
    last = SPOILED + size - BEAT_BYTES
    copy[last] = copy[last][:-1] + bytes([copy[last][-1] ^ 1])
    return replace(memory, words={**memory.words, **copy})


def replay_of(**given: Any) -> Replay:
    """Of ``settings`` and ``events``, on ``SMALL`` unless other limits are given, with memories of 20 cycles."""
    return Replay(
        **{
            "limits": SMALL,
            "times": LayerTimes(before_gate_cycles=20, layer_cycles=50),
            "memory": MemoryTiming(latency=20),
            "seed": 5,
            **given,
        }
    )
