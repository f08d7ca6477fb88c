"""A trace's routing as the device takes it, step by step, and which sequence runs in which slot of the cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from gpu_reference.offload.runtime import ForcedRouting
from predictor.policies.parts import Part


@dataclass(frozen=True, eq=False)
class Call:
    """Tokens that go through the decoder at once: one of each of several sequences, or several of one.

    Attributes:
        rows: i64 ``[n]``, tokens of the trace.
        slots: of each token.
        positions: of each token in its sequence.
        starts: (slot, tokens that precede) of sequences that begin here.
    """

    rows: NDArray[np.int64]
    slots: list[int]
    positions: list[int]
    starts: list[tuple[int, int]]


class ReplayPlan:
    """The calls of each step of ``part``.

    A step with several tokens of several sequences (prompts of a batch) becomes one call a sequence. A sequence begins
    at the trace's first position of it, and its tokens follow each other from there.

    Attributes:
        slots: sequences that run at once, at most.
        max_context: tokens of a sequence, those before the trace's first included, at most.
    """

    def __init__(self, part: Part) -> None:
        self._part = part
        trace, steps = part.trace, part.steps
        sequence_of = np.repeat(np.arange(trace.sequences), np.diff(trace.sequence_offsets))
        self._sequence = sequence_of[steps.tokens]
        self._start = np.asarray(trace.position)[trace.sequence_offsets[:-1]].astype(np.int64)
        step_of = np.repeat(np.arange(len(steps)), np.diff(steps.offsets))
        self._last_step = np.full(trace.sequences, -1, np.int64)
        np.maximum.at(self._last_step, self._sequence, step_of)
        lengths = np.bincount(self._sequence, minlength=trace.sequences)
        ran = lengths > 0
        self.max_context = int((self._start + lengths)[ran].max())
        live = np.zeros(len(steps) + 1, np.int64)
        first_step = np.full(trace.sequences, len(steps), np.int64)
        np.minimum.at(first_step, self._sequence, step_of)
        np.add.at(live, first_step[ran], 1)
        np.add.at(live, self._last_step[ran] + 1, -1)
        self.slots = int(live.cumsum().max())

    def steps(self) -> Iterator[list[Call]]:
        """The calls of each step, in order."""
        steps = self._part.steps
        slot_of: dict[int, int] = {}
        lengths: dict[int, int] = {}
        free = list(range(self.slots))
        for step in range(len(steps)):
            span = slice(int(steps.offsets[step]), int(steps.offsets[step + 1]))
            rows, sequences = steps.tokens[span], self._sequence[span]
            distinct = list(dict.fromkeys(sequences.tolist()))
            starts: dict[int, tuple[int, int]] = {}
            for sequence in distinct:
                if sequence not in slot_of:
                    slot_of[sequence] = free.pop(0)
                    lengths[sequence] = int(self._start[sequence])
                    starts[sequence] = (slot_of[sequence], lengths[sequence])
            groups = [distinct] if len(distinct) == len(rows) else [[sequence] for sequence in distinct]
            calls = []
            for group in groups:
                mine = rows[np.isin(sequences, group)]
                whose = sequences[np.isin(sequences, group)].tolist()
                positions = []
                for sequence in whose:
                    positions.append(lengths[sequence])
                    lengths[sequence] += 1
                begun = [starts[sequence] for sequence in group if sequence in starts]
                calls.append(Call(mine, [slot_of[sequence] for sequence in whose], positions, begun))
            yield calls
            for sequence in distinct:
                if self._last_step[sequence] == step:
                    free.append(slot_of.pop(sequence))
                    free.sort()

    def forced(self, call: Call, device: torch.device) -> list[ForcedRouting]:
        """The routing of each layer for ``call``, its gate weights as recorded, or equal where there are none.

        A row that was not recorded (of steps that are not timed) adds nothing: it takes an expert that the layer needs
        anyway, with weight 0. Where nothing of the layer was recorded, nothing is computed.
        """
        trace = self._part.trace
        ids = trace.expert_ids[call.rows].astype(np.int64)
        if trace.gate_weights is None:
            weights = np.full(ids.shape, 1 / trace.top_k, np.float32)
        else:
            weights = trace.gate_weights[call.rows].astype(np.float32)
        missing = ids[..., 0] == trace.unrecorded_id
        found = []
        for layer in range(trace.layers):
            chosen, weight, lacks = ids[:, layer], weights[:, layer], missing[:, layer]
            if lacks.all():
                found.append(ForcedRouting([], torch.empty(0, 0), torch.empty(0, 0)))
                continue
            if lacks.any():
                chosen, weight = chosen.copy(), weight.copy()
                chosen[lacks], weight[lacks] = chosen[~lacks][0], 0
            found.append(
                ForcedRouting(
                    chosen.reshape(-1).tolist(),
                    torch.from_numpy(np.ascontiguousarray(chosen)).to(device),
                    torch.from_numpy(np.ascontiguousarray(weight)).to(device),
                )
            )
        return found
