"""A script through the stager's circuit under Verilator, compared with the twin's answers."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from cocotb_tests.build import build
from cocotb_tests.prefetch_stager.script import Observed, StagerScript, clear_payload
from cocotb_tests.simulation import run
from rtl.prefetch.stager.layouts import StagerShape, command_layout
from rtl.prefetch.stager.stager import Stager
from rtl.verilog import to_verilog


@dataclass(frozen=True, kw_only=True)
class StagerReplayResult:
    """A replay and its comparison.

    Attributes:
        commands: compared.
        mismatches: commands with another answer or other cycles, and entries, counters or a queue that differ at the
            end.
        first_mismatch: the first of them in words; empty where there is none.
        cycles: of the circuit.
        wall_s: seconds of the simulator, its start included.
    """

    commands: int
    mismatches: int
    first_mismatch: str
    cycles: int
    wall_s: float


def replay_script(
    script: StagerScript, *, seed: int = 0, progress: Callable[[int], None] | None = None
) -> StagerReplayResult:
    """Run ``script`` and compare every command's answer, and the state at the end.

    Raises:
        ForestageError: hardware runs are not possible here.
        SimulationError: the simulation failed, or a check of the circuit.
    """
    shape = script.shape
    payloads = [clear_payload(shape), *script.payloads]
    size = -(-command_layout(shape).size // 8)
    told = [values for values in script.values if values]
    simulation = run(
        build(_verilog(shape.model_dump_json()), "stager"),
        "cocotb_tests.prefetch_stager.stager_test",
        stimulus={
            "settings": f"{script.settings_word:x}",
            "shares": list(script.shares),
            "lanes": shape.limits.lanes,
            "value_bits": shape.limits.value_bits,
            "payloads": np.array([list(payload.to_bytes(size, "little")) for payload in payloads], np.uint8),
            "values": np.array(told, np.int64).reshape(len(told), script.used.experts),
            "has_values": np.array([False, *(bool(values) for values in script.values)]),
            "keys": np.array([script.key_word(key) for key in range(script.used.keys)], np.int64),
        },
        seed=seed,
        timeout_s=600 + len(payloads) / 20,
        progress=progress,
    )
    return _compared(script, simulation.values, simulation.wall_s)


@lru_cache(maxsize=4)
def _verilog(shape: str) -> str:
    return to_verilog(Stager(StagerShape.model_validate_json(shape)), "stager")


def _compared(script: StagerScript, values: dict[str, Any], wall_s: float) -> StagerReplayResult:
    """The comparison; the first command is CLEAR."""
    observed = [
        Observed(cycles=cycles, done=int(done, 16), levels=levels)
        for cycles, done, levels in zip(
            values["cycles"].tolist(), values["done"], values["levels"].tolist(), strict=True
        )
    ]
    for nth, action in zip(values["actions_of"].tolist(), values["actions"], strict=True):
        observed[nth].actions.append(int(action, 16))
    wrong = []
    for nth, (answer, did) in enumerate(zip(script.answers, observed[1:], strict=True)):
        said = script.said(did)
        expected = {name: answer[name] for name in said}
        if said != expected:
            wrong.append(f"command {nth}, {answer['command']}: circuit {said}, twin {expected}")
    for key in range(script.used.keys):
        entry = script.entry_of(int(values["entries"][key], 16), int(values["values"][key], 16))
        if entry != script.entry(key):
            wrong.append(f"key {key}: circuit {entry}, twin {script.entry(key)}")
    waiting = script.waiting_of(values["queue_waiting"], int(values["queue"], 16), int(values["queue_demanded"], 16))
    if waiting != script.waiting:
        wrong.append(f"queue: circuit {waiting}, twin {script.waiting}")
    counters = script.counters_of(int(values["counters"], 16))
    if counters != script.counters:
        wrong.append(f"counters: circuit {counters}, twin {script.counters}")
    return StagerReplayResult(
        commands=len(script.answers),
        mismatches=len(wrong),
        first_mismatch=wrong[0] if wrong else "",
        cycles=int(values["cycles"].sum()),
        wall_s=wall_s,
    )
