"""A head's program run in plain integers, from the words that are loaded into the hardware's memories."""

import numpy as np

from predictor.row_network.integers import (
    ADAPTED_LIMIT,
    CERTAIN,
    CHANCE_BINS,
    CHANCE_SHIFT,
    FRACTION_BITS,
    HIDDEN_MAX,
    SCORE_MAX,
    SCORE_MIN,
    SCORE_ZERO,
)
from predictor.row_network.program import (
    IDENTITIES_MAX,
    LAYER,
    MATCHED_MAX,
    MATCHED_SUM,
    OPERATION,
    OPERATIONS,
    SETTINGS,
    HeadProgram,
    Memory,
    unpack,
)


class HeadInterpreter:
    """One head and one slot. Sums are i64 ``[words · lanes]``; what a unit of hardware would read before anybody wrote
    it is not 0 here."""

    def __init__(self, program: HeadProgram) -> None:
        self.memories = program.contents()
        self.lanes = program.lanes
        self.settings = unpack(SETTINGS, self.memories[Memory.SETTINGS].word(0))
        layers, wide = self.settings["layers"], self.settings["words"] * self.lanes
        decays = len(program.settings.decays)
        self.ring = np.full((self.settings["ring"], layers, wide), 10**6, np.int64)
        self.fresh = np.full((decays, layers, wide), 10**6, np.int64)
        self.decayed = np.full((decays, layers, wide), 10**6, np.int64)
        self.trail = np.full((layers, wide), 10**6, np.int64)
        self.start_sequence()

    def start_sequence(self) -> None:
        """Only this token's sums are cleared."""
        self.ring[0] = 0
        self.first_token = True
        self.adapted = np.zeros((self.settings["layers"], self.settings["experts"]), np.int64)

    def identity(self, layer: int, age: int, row: np.ndarray) -> None:
        """The row ``[hidden]`` of a token's identity is added."""
        shift = self.memories[Memory.IDENTITY_SHIFTS].word(layer * IDENTITIES_MAX + age)
        self.ring[0, layer, : len(row)] += row.astype(np.int64) << shift

    def record(self, record: int, layer: int, ids: np.ndarray) -> None:
        """What ``layer`` chose in a record of the log is added."""
        records = self.memories[Memory.RECORDS]
        mask = records.word(record) if record < len(records.data) else 0
        for source in range(MATCHED_MAX):
            if mask >> source & 1:
                found = unpack(MATCHED_SUM, self.memories[Memory.MATCHED].word(layer * MATCHED_MAX + source))
                self.ring[0, layer] += self._rows(found["base"], found["shift"], ids)

    def gate(self, layer: int, ids: np.ndarray, *, recorded: bool, held: bool) -> np.ndarray | None:
        """The gate of ``layer`` chose ``ids`` (``held``: they are the last recorded ones); sums of the target."""
        program, place, shown = self.memories[Memory.GATE_PROGRAM], layer * OPERATIONS, None
        if layer + self.settings["distance"] < self.settings["layers"]:
            self._operate(unpack(OPERATION, program.word(place)), ids, recorded, held)
            shown = self.asked(layer + self.settings["distance"])
        while True:
            place += 1
            operation = unpack(OPERATION, program.word(place))
            self._operate(operation, ids, recorded, held)
            if operation["last"]:
                return shown

    def end_token(self) -> None:
        """The last layer's gate was told."""
        self.ring = np.roll(self.ring, -1, axis=0)
        self.first_token = False

    def asked(self, target: int) -> np.ndarray:
        """The sums of ``target`` now."""
        if self.first_token or not self.settings["trails"]:
            return self.ring[0, target].copy()
        return self.ring[0, target] + self.trail[target]

    def scores(self, target: int, sums: np.ndarray) -> np.ndarray:
        """Scores ``[answers]``."""
        layer = unpack(LAYER, self.memories[Memory.LAYERS].word(target))
        words, answers = self.settings["words"], self.settings["answers"]
        bias = self.memories[Memory.BIAS].data.view("<i4")[layer["bias"] : layer["bias"] + words].reshape(-1)
        hidden = np.clip(_rounded(sums + bias, layer["hidden_shift"]), 0, HIDDEN_MAX)
        first = layer["output"]
        output = self.memories[Memory.OUTPUT].data.view(np.int8)[first : first + answers * words]
        totals = output.reshape(answers, -1).astype(np.int64) @ hidden
        first = layer["answers"]
        totals += self.memories[Memory.OUTPUT_BIAS].data.view("<i4")[first : first + answers, 0]
        scores = _rounded(totals, layer["score_shift"]) + SCORE_ZERO
        if layer["adaptation"]:
            scores += self.adapted[target] >> layer["adaptation"]
        return np.clip(scores, SCORE_MIN, SCORE_MAX)

    def chances(self, target: int, scores: np.ndarray) -> np.ndarray:
        """Chances ``[answers]``."""
        layer = unpack(LAYER, self.memories[Memory.LAYERS].word(target))
        question = np.arange(len(scores)) // self.settings["experts"]
        table = self.memories[Memory.CHANCES].data.view("<u2")[:, 0]
        return table[layer["chances"] + question * CHANCE_BINS + (scores >> CHANCE_SHIFT)].astype(np.int64)

    def adapt(self, layer: int, ids: np.ndarray, chances: np.ndarray) -> None:
        """The gate of ``layer`` chose ``ids``, and ``chances`` were told."""
        if unpack(LAYER, self.memories[Memory.LAYERS].word(layer))["adaptation"]:
            self.adapted[layer] -= chances
            self.adapted[layer, ids] += CERTAIN
            self.adapted[layer] = np.clip(self.adapted[layer], -ADAPTED_LIMIT, ADAPTED_LIMIT)

    def _operate(self, operation: dict[str, int], ids: np.ndarray, recorded: bool, held: bool) -> None:
        index, target = operation["index"], operation["target"]
        sums = self.fresh[index] if operation["fresh"] else self.ring[index]
        if operation["begins"] == 1 or (operation["begins"] == 2 and self.first_token):
            sums[target] = 0
        known = recorded or (held and (operation["fresh"] or index > 0))
        if operation["rows"] and known:
            sums[target] += self._rows(operation["base"], operation["shift"], ids)
        if operation["finishes"]:
            decay = self.settings[f"decay{index}"]
            before = np.zeros_like(self.decayed[index, target]) if self.first_token else self.decayed[index, target]
            after = before + _rounded((sums[target] << FRACTION_BITS) - before, decay)
            self.decayed[index, target] = after
            added = _rounded(after, FRACTION_BITS - decay // 2)
            self.trail[target] = added + (0 if operation["starts"] else self.trail[target])

    def _rows(self, base: int, shift: int, ids: np.ndarray) -> np.ndarray:
        rows = self.memories[Memory.ROWS].data.view(np.int8)
        total = np.zeros((self.settings["words"], self.lanes), np.int64)
        for word in range(self.settings["words"]):
            for rank, expert in enumerate(ids):
                row = rows[base + word * self.settings["experts"] + int(expert)].astype(np.int64)
                total[word] += row << (shift + self.settings[f"rank_shift{rank}"])
        return total.reshape(-1)


def _rounded(values: np.ndarray, shift: int) -> np.ndarray:
    return (values + (1 << shift >> 1)) >> shift
