"""Run descriptors through the DMA under Verilator, and compare every byte."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cocotb_tests.build import AMARANTH_LINT_OFF, BuildOptions, BuiltModel, build
from cocotb_tests.models import AXI4_CHECKER, AXI4_RAM
from cocotb_tests.models.files import WRITE, Fault, ReadBurst, WriteBurst, fault_lines, pattern
from cocotb_tests.simulation import SimulationResult, run
from rtl.prefetch.dma.dma import Dma
from rtl.verilog import to_verilog
from staging.transfer.bursts import Descriptor
from staging.transfer.limits import TransferError, TransferLimits, TransferSettings

BENCH = Path(__file__).parent / "bench.sv"


@dataclass(frozen=True, kw_only=True)
class MemoryTiming:
    """How a memory model behaves.

    Attributes:
        latency: cycles from the handshake on AR to the first beat; of a memory that is written: from the last one on AW
            and W to B.
        interval: cycles from beat to beat, 1 or more.
        waits: chance, in 256ths, that a channel waits in a cycle.
    """

    latency: int = 1
    interval: int = 1
    waits: int = 0


@dataclass(frozen=True, kw_only=True)
class Moved:
    """What happened.

    Attributes:
        hung: nothing happened any more before all descriptors had ended.
        accepted, ended: cycles of each descriptor.
        errors: how each ended.
        reads, writes: bursts that the memories saw, in order.
        strays: answers to nothing, which the DMA ignored.
        breaches: of the protocol, as the checkers beside both buses say them.
        memory: what lies in the staging memory: address and byte of all that was written, ascending.
        wall_s: seconds.
    """

    hung: bool
    accepted: list[int]
    ended: list[int]
    errors: list[TransferError]
    reads: list[ReadBurst]
    writes: list[WriteBurst]
    strays: int
    breaches: list[str]
    memory: tuple[NDArray[np.int64], NDArray[np.uint8]]
    wall_s: float

    @property
    def read_busy(self) -> float:
        """Of the cycles from the first beat on R to the last, the share in which a beat was handed over."""
        return sum(burst.beats for burst in self.reads) / (self.reads[-1].last - self.reads[0].first + 1)


def move(
    limits: TransferLimits,
    descriptors: Sequence[Descriptor],
    *,
    settings: TransferSettings | None = None,
    far: MemoryTiming | None = None,
    staging: MemoryTiming | None = None,
    waits: int = 0,
    faults: Sequence[Fault] = (),
    seed: int = 0,
    patience: int = 100_000,
    timeout_s: float = 600,
) -> Moved:
    """Run ``descriptors`` in order; ``waits``: of the streams of descriptors and of ends, as ``MemoryTiming.waits``.

    ``faults`` of kind ``WRITE`` are the staging memory's, the others the far memory's.

    Raises:
        SimulationError: a check of the circuit failed, or the simulation took too long.
        ForestageError: hardware runs are not possible here.
    """
    settings, far, staging = settings or TransferSettings(), far or MemoryTiming(), staging or MemoryTiming()
    plusargs = {
        "seed": seed,
        "waits": waits,
        "patience": patience,
        "outstanding": settings.outstanding or limits.outstanding,
        "share": settings.share,
        "silence": settings.silence,
        "far_latency": far.latency,
        "far_interval": far.interval,
        "far_waits": far.waits,
        "staging_answer": staging.latency,
        "staging_write_interval": staging.interval,
        "staging_waits": staging.waits,
    }
    flags = ["+far_fill", *(["+far_faulty"] if faults else [])]
    result = run(
        _model(limits),
        "cocotb_tests.transfers.bench_test",
        stimulus={"data_bytes": limits.data_bytes},
        plusargs=[*flags, *(f"+{name}={value}" for name, value in plusargs.items())],
        files=_files(descriptors, faults),
        seed=seed,
        timeout_s=timeout_s,
    )
    return _moved(result)


@cache
def _model(limits: TransferLimits) -> BuiltModel:
    parameters = {
        "ADDRESS_BITS": limits.address_bits,
        "DATA_BITS": 8 * limits.data_bytes,
        "OUTSTANDING_BITS": limits.outstanding.bit_length(),
    }
    return build(
        to_verilog(Dma(limits), "dma"),
        "bench",
        BuildOptions(
            models=(AXI4_RAM, AXI4_CHECKER, BENCH),
            visible=("clk", "rst", "keep", "finished", "hung", "strays"),
            lint_off=(*AMARANTH_LINT_OFF, "BLKSEQ"),
            verilator_arguments=[f"-G{name}={value}" for name, value in parameters.items()],
        ),
    )


def _moved(result: SimulationResult) -> Moved:
    values = result.values
    masks, words = values["masks"].astype(np.bool_), values["words"]
    lanes = np.arange(masks.shape[1])
    accepted, ended, errors = values["ends"].T.tolist()
    return Moved(
        hung=values["hung"],
        accepted=accepted,
        ended=ended,
        errors=[TransferError(error) for error in errors],
        reads=[ReadBurst(*row) for row in values["reads"].tolist()],
        writes=[WriteBurst(*row) for row in values["writes"].tolist()],
        strays=values["strays"],
        breaches=values["breaches"],
        memory=((values["addresses"][:, None] + lanes)[masks], words[masks]),
        wall_s=result.wall_s,
    )


def expected_memory(descriptors: Sequence[Descriptor]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """What must lie in the staging memory after ``descriptors``, whose destinations do not overlap."""
    ordered = sorted(descriptors, key=lambda descriptor: descriptor.destination)
    addresses = [np.arange(d.destination, d.destination + d.bytes, dtype=np.int64) for d in ordered]
    return np.concatenate(addresses), np.concatenate([pattern(d.source, d.bytes) for d in ordered])


def _files(descriptors: Sequence[Descriptor], faults: Sequence[Fault]) -> dict[str, str]:
    """The files that the bench and the models read."""
    return {
        "descriptors": "".join(f"{d.source:x} {d.destination:x} {d.bytes:x}\n" for d in descriptors),
        "far.faults": fault_lines(fault for fault in faults if fault.kind != WRITE),
        "staging.faults": fault_lines(fault for fault in faults if fault.kind == WRITE),
    }
