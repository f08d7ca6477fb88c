"""ST-MoE's tables, event by event: the specification of ``rtl/prefetch/tables/predictor.py``.

Everything the hardware does is decided here: which requests and in which order, which rows are written and with what
bits, and how many cycles every event takes. Integers and NumPy alone.

The algorithm (arXiv 2606.15453, as summarised in docs/predictors.md). The *cross-layer correlation table* (CCT) holds,
for every expert of every source layer, candidates of the layer ``lookahead`` above, each with a 2-bit confidence. The
*history table* (HT) holds the experts that the latest token of the sequence chose in each layer.

Several sequences run at once, each in a *slot* with an HT of its own. They share the CCT of their domain: each domain
has a bank of it, which a sequence chooses when it starts.

When the gate of layer ``l`` is known:

1. *Predict* layer ``l + lookahead``: the CCT rows of the chosen experts, aggregated by candidate, plus
   ``ht_confidence`` for those in HT; requests for scores ≥ ``threshold``, best first, at most ``issue_limit``.
2. *Verify* layer ``l``'s prediction: in the rows that made it (those of the experts this token chose in layer
   ``l − lookahead``), every candidate that was needed gains one confidence, every other loses one (saturating), issued
   or not. A candidate at 0 that misses again is replaced by a needed expert that the row does not list, the next one
   for each; where none is left it stays.
3. *Remember* the chosen experts in HT.

The two rows' sets lie in different layers, so neither order nor overlap of 1 and 2 matters.
"""

from typing import Self

import numpy as np
from numpy.typing import NDArray

from catalog.errors import ForestageError
from predictor.st_moe.events import NO_ERROR, EngineCounter, EventError, Request, RoutingEvent, RowUpdate, StepResult
from predictor.st_moe.parameters import CONFIDENCE_MAX, EngineConfiguration, EngineLimits
from predictor.st_moe.rows import RowFormat

OFF_CYCLES = 1
REJECTED_CYCLES = 2
_CHECK_CYCLES = 2  # accept, check
_PREDICT_PIPELINE = 5  # accept, check; after the last row's address: row, contribution, sum
_VERIFY_PIPELINE = 5  # accept, check; after the last row's address: row, match, write


def event_cycles(limits: EngineLimits, *, top_k: int, requests: int, predicts: bool, verifies: bool) -> int:
    """Cycles from the acceptance of an event to the first cycle that can accept another, requests never waiting.

    A prediction reads ``top_k`` rows, one a cycle, loads the tournament tree, waits ``log2(experts_max)`` cycles for
    its root and issues a request a cycle; finding that there is none takes one. Rows to verify are read behind them, so
    their update is hidden behind the tree unless it is shallow.
    """
    depth = limits.expert_bits
    rows_read = top_k if predicts else 0
    predict = rows_read + _PREDICT_PIPELINE + depth + max(requests, 1) if predicts else _CHECK_CYCLES
    verify = rows_read + top_k + _VERIFY_PIPELINE if verifies else _CHECK_CYCLES
    return max(predict, verify)


def first_request_cycle(limits: EngineLimits, *, top_k: int) -> int:
    """Cycles from the acceptance of an event to the first request being valid."""
    return top_k + _PREDICT_PIPELINE + limits.expert_bits


class StMoeTables:
    """The state of a prefetch engine, and its one step.

    Attributes:
        limits: what the engine was generated for.
        configuration: what its registers hold.
        rows: how its table memory is packed.
        counters: i64, indexed by ``EngineCounter``; stalls belong to the consumer, so ``STALL_CYCLES`` stays 0.
        errors: every kind of rejection since the start (sticky).
    """

    def __init__(
        self,
        limits: EngineLimits,
        configuration: EngineConfiguration,
        candidates: NDArray[np.int16],
        confidences: NDArray[np.int8],
    ) -> None:
        """Load ``candidates`` and ``confidences`` ``[domains, layers, experts, candidates]``, indexed by source layer.

        Of a single domain, ``[layers, experts, candidates]`` will do.

        Raises:
            ForestageError: if the model does not fit the limits.
            ValueError: if the tables' shape, ids or confidences are not the configuration's, or a row names an expert
                twice.
        """
        limits.check_model(
            layers=configuration.layers,
            experts=configuration.experts,
            top_k=configuration.top_k,
            candidates=configuration.candidates,
            origin="prefetch engine",
        )
        if configuration.threshold >= 1 << limits.score_bits:
            raise ForestageError(
                f"prefetch engine: threshold {configuration.threshold} exceeds the largest score, "
                f"{(1 << limits.score_bits) - 1}; choose a smaller one"
            )
        if configuration.domains > limits.domains_max:
            raise ForestageError(
                f"prefetch engine: domains is {configuration.domains}, the generated prefetch engine holds at most "
                f"{limits.domains_max}; generate it with --domains-max {1 << (configuration.domains - 1).bit_length()}"
            )
        if candidates.ndim == confidences.ndim == 3:
            candidates, confidences = candidates[None], confidences[None]
        _check_tables(configuration, candidates, confidences)
        self.limits = limits
        self.configuration = configuration
        self.rows = RowFormat(limits)
        self._enabled = True
        self.counters = np.zeros(len(EngineCounter), np.int64)
        self.errors = NO_ERROR
        domains, layers, experts, kept = candidates.shape
        shape = (limits.layers_max, limits.domains_max, limits.experts_max, limits.candidates_max)
        self._candidates = np.zeros(shape, np.int16)
        self._confidences = np.zeros(shape, np.int8)
        self._candidates[:layers, :domains, :experts, :kept] = candidates.swapaxes(0, 1)
        self._confidences[:layers, :domains, :experts, :kept] = confidences.swapaxes(0, 1)
        # Of each slot.
        self._history = np.zeros((limits.slots_max, limits.layers_max, configuration.top_k), np.int16)
        self._in_sequence = np.zeros((limits.slots_max, limits.layers_max), np.bool_)
        self._in_token = np.zeros((limits.slots_max, limits.layers_max), np.bool_)
        self._domain = np.zeros(limits.slots_max, np.int64)

    @classmethod
    def from_memory_image(
        cls, limits: EngineLimits, configuration: EngineConfiguration, image: NDArray[np.uint32]
    ) -> Self:
        """The twin of an engine whose memory was loaded with ``image``, as from ``to_memory_image``."""
        candidates, confidences = RowFormat(limits).tables(image)
        used = np.s_[
            : configuration.layers, : configuration.domains, : configuration.experts, : configuration.candidates
        ]
        return cls(limits, configuration, candidates[used].swapaxes(0, 1), confidences[used].swapaxes(0, 1))

    @property
    def enabled(self) -> bool:
        """Mode ``tables`` (True) or ``off``, which discards events and forgets histories and domains."""
        return self._enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        self._enabled = value
        if not value:
            for slot in range(self.limits.slots_max):
                self.start_sequence(slot)

    def start_token(self, slot: int = 0) -> None:
        """No layer of the slot's token is known yet."""
        self._in_token[slot] = False

    def start_sequence(self, slot: int = 0, domain: int = 0) -> None:
        """Forget the slot's history, and use the bank of ``domain``; the correlation table stays."""
        self._in_sequence[slot] = False
        self._domain[slot] = domain
        self.start_token(slot)

    def step(self, event: RoutingEvent) -> StepResult:
        """Process one event.

        Raises:
            ValueError: if the event has not ``top_k`` experts (the hardware would read stale bits).
        """
        if len(event.experts) != self.configuration.top_k:
            raise ValueError(f"an event of {len(event.experts)} experts; the configuration has {self.configuration}")
        result = self._step_enabled(event) if self.enabled else self._step_off()
        self.counters[EngineCounter.REQUESTS] += len(result.requests)
        self.counters[EngineCounter.UPDATES] += len(result.updates)
        self.counters[EngineCounter.BUSY_CYCLES] += result.cycles - 1
        return result

    def predicted_scores(self, layer: int, slot: int = 0) -> NDArray[np.int32]:
        """Scores i32 ``[experts_max]`` of target ``layer``; zero unless the token's source layer is known."""
        source = layer - self.configuration.lookahead
        if source < 0 or not self._in_token[slot, source]:
            return np.zeros(self.limits.experts_max, np.int32)
        return self._scores(slot, layer, self._history[slot, source])

    def to_memory_image(self) -> NDArray[np.uint32]:
        """The table memory as loaded over AXI4-Lite: words u32 ``[rows, words]``."""
        return self.rows.image(self._candidates, self._confidences)

    def _step_off(self) -> StepResult:
        self.counters[EngineCounter.DISCARDED] += 1
        return StepResult((), (), OFF_CYCLES)

    def _step_enabled(self, event: RoutingEvent) -> StepResult:
        slot = event.slot
        if slot < self.limits.slots_max:
            if event.starts_sequence:
                self.start_sequence(slot, event.domain)
            if event.starts_token:
                self.start_token(slot)
        self.counters[EngineCounter.EVENTS] += 1
        error = self._check(event)
        if error:
            self.errors |= error
            self.counters[EngineCounter.REJECTED] += 1
            return StepResult((), (), REJECTED_CYCLES, error)
        configuration = self.configuration
        experts = np.array(event.experts, np.int16)
        target = event.layer + configuration.lookahead
        source = event.layer - configuration.lookahead
        predicts = target < configuration.layers
        verifies = source >= 0 and bool(self._in_token[slot, source])
        requests = self._predict(slot, target, experts) if predicts else ()
        updates = self._verify(slot, source, experts) if verifies else ()
        self.counters[EngineCounter.PREDICTIONS] += predicts
        self._history[slot, event.layer] = experts
        self._in_sequence[slot, event.layer] = self._in_token[slot, event.layer] = True
        cycles = event_cycles(
            self.limits,
            top_k=configuration.top_k,
            requests=len(requests),
            predicts=predicts,
            verifies=verifies,
        )
        return StepResult(requests, updates, cycles)

    def _check(self, event: RoutingEvent) -> EventError:
        error = NO_ERROR
        if event.layer >= self.configuration.layers:
            error |= EventError.LAYER
        if max(event.experts) >= self.configuration.experts:
            error |= EventError.EXPERT
        if len(set(event.experts)) < len(event.experts):
            error |= EventError.DUPLICATE
        if event.slot >= self.limits.slots_max:
            error |= EventError.SLOT
        elif self._domain[event.slot] >= self.configuration.domains:
            error |= EventError.DOMAIN
        return error

    def _scores(self, slot: int, target: int, experts: NDArray[np.int16]) -> NDArray[np.int32]:
        """Scores i32 ``[experts_max]`` of ``target`` from the source layer's chosen ``experts``."""
        source = target - self.configuration.lookahead
        used = slice(0, self.configuration.candidates)
        bank = self._domain[slot]
        candidates = self._candidates[source, bank][experts, used]
        confidences = self._confidences[source, bank][experts, used]
        scores = np.zeros(self.limits.experts_max, np.int32)
        aggregate = np.maximum if self.configuration.aggregation == "max" else np.add
        aggregate.at(scores, candidates.ravel(), confidences.ravel())
        if self._in_sequence[slot, target]:
            scores[self._history[slot, target]] += self.configuration.ht_confidence
        return scores

    def _predict(self, slot: int, target: int, experts: NDArray[np.int16]) -> tuple[Request, ...]:
        scores = self._scores(slot, target, experts)
        order = np.argsort(-scores, kind="stable").tolist()
        best = [expert for expert in order if scores[expert] >= self.configuration.threshold]
        issued = best[: self.configuration.issue_limit]
        return tuple(
            Request(target, expert, int(scores[expert]), nth == len(issued)) for nth, expert in enumerate(issued, 1)
        )

    def _verify(self, slot: int, source: int, needed: NDArray[np.int16]) -> tuple[RowUpdate, ...]:
        """Update the rows of the experts this token chose in layer ``source``, in the order of that event."""
        configuration = self.configuration
        chosen = self._history[slot, source]
        used = slice(0, configuration.candidates)
        domain = int(self._domain[slot])
        bank = self._candidates[source, domain]
        bank_confidences = self._confidences[source, domain]
        candidates = bank[chosen, used]
        confidences = bank_confidences[chosen, used]
        matches = candidates[:, :, None] == needed  # [rows, candidates, needed]
        hits = matches.any(axis=2)
        given_up = ~hits & (confidences == 0)
        confidences = np.where(hits, np.minimum(confidences + 1, CONFIDENCE_MAX), np.maximum(confidences - 1, 0))
        if configuration.replacement != "none" and given_up.any():
            preference = slice(None, None, -1 if configuration.replacement == "reversed" else 1)
            for row in np.flatnonzero(given_up.any(axis=1)).tolist():
                unlisted = needed[~matches[row].any(axis=0)][preference]
                replaced = np.flatnonzero(given_up[row])[: len(unlisted)]
                candidates[row, replaced] = unlisted[: len(replaced)]
                confidences[row, replaced] = configuration.replacement_confidence
                self.counters[EngineCounter.REPLACEMENTS] += len(replaced)
        bank[chosen, used] = candidates
        bank_confidences[chosen, used] = confidences
        self.counters[EngineCounter.CANDIDATE_HITS] += hits.sum()
        self.counters[EngineCounter.CANDIDATE_MISSES] += (~hits).sum()
        return tuple(
            RowUpdate(
                self.rows.address(source, expert, domain),
                self.rows.pack(bank[expert], bank_confidences[expert]),
            )
            for expert in chosen.tolist()
        )


def _check_tables(
    configuration: EngineConfiguration, candidates: NDArray[np.int16], confidences: NDArray[np.int8]
) -> None:
    """Raise ValueError unless the tables are ones the hardware's rules hold for."""
    shape = (configuration.domains, configuration.layers, configuration.experts, configuration.candidates)
    if candidates.shape != shape or confidences.shape != shape:
        raise ValueError(f"tables of shape {candidates.shape} and {confidences.shape}; the configuration has {shape}")
    if candidates.min() < 0 or candidates.max() >= configuration.experts:
        raise ValueError(f"a candidate is not in 0…{configuration.experts - 1}")
    if confidences.min() < 0 or confidences.max() > CONFIDENCE_MAX:
        raise ValueError(f"a confidence is not in 0…{CONFIDENCE_MAX}")
    ordered = np.sort(candidates, axis=-1)
    if (ordered[..., 1:] == ordered[..., :-1]).any():
        raise ValueError("a row lists a candidate twice")
