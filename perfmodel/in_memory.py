"""How long an expert takes in the memory in which it lies (PIM), as `Durations` of its own.

* An expert lies in one *group* of pseudo-channels, expert ``e`` of a layer in group ``e % groups``. Each pseudo-channel
  has as many of its intermediate rows (gate, up, and columns of ``down``), and runs its slice as one descriptor of the
  unit; the largest slice decides. Spreading an expert over more of them gains less and less, as each loads all of the
  inputs and reads all of the outputs back; so an expert takes a stack, and the stacks work at once, by default.
* The unit reads the weights once for ``tokens_per_read`` tokens; an expert of more takes several passes, one after the
  other, each with its readback, and before and after it inputs and partial outputs over the pins of all of its
  pseudo-channels at once. Clocks are those of `pim_model.gemv.closed_form`; with refresh, means over when it begins.
* Once a layer the inputs (BF16, one vector of the model's width a token of the largest timed step) cross the link, and
  the latency passes each way. For each token of each expert the partial outputs follow after the layer's last expert:
  FP32 vectors of the model's width, one a pseudo-channel, or one a stack. As the host's, they do not compete with
  transfers of experts (assumption).
* A transfer reads the expert from its group's pins, no faster than these are, and takes clocks of the same banks. For
  each row of every bank group that it reads, the unit closes its banks and opens them again; the transfer does not
  wait. It is taken to be the group that decides in one of ``groups`` cases: the mean rate is what the simulation has.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from catalog.catalogue import Catalog, load_catalog
from catalog.dram import DramRecord
from catalog.errors import SettingError
from catalog.models import ModelRecord
from perfmodel.config import SimulationConfig
from perfmodel.costs import BF16_BYTES, CostModel
from perfmodel.durations import RATE, check_expert, device_times, transfer_chunks, transfer_ps
from perfmodel.in_memory_config import InMemory
from perfmodel.units import PS_PER_US
from perfmodel.workload import Durations
from pim_model.gemv.closed_form import unit_clocks
from pim_model.gemv.expert import BEGINNINGS, ExpertShape, slices_of
from pim_model.unit.parameters import UnitParameters
from pim_model.unit.program import Program, WeightFormat, expert_program

FP32_BYTES = 4
FORMATS = {"bf16": WeightFormat.BF16, "int8": WeightFormat.INT8, "mxfp4": WeightFormat.MXFP4}


@dataclass(frozen=True, eq=False, kw_only=True)
class ExpertMemory:
    """The memory of one model's experts.

    Attributes:
        settings: what was asked for.
        model: whose experts.
        parameters: of the unit of each pseudo-channel.
        slice_rows: intermediate rows of the largest slice.
        slices: of an expert; pseudo-channels beyond these have none of it.
        weight_format: in which it computes.
        tokens_per_read: tokens a pass.
        pseudo_channels: of one expert.
        groups: of as many pseudo-channels.
        link_bytes_per_s: between it and the device.
    """

    settings: InMemory
    model: ModelRecord
    parameters: UnitParameters
    slice_rows: int
    slices: int
    weight_format: WeightFormat
    tokens_per_read: int
    pseudo_channels: int
    groups: int
    link_bytes_per_s: int

    @classmethod
    def of(cls, settings: InMemory, costs: CostModel, catalog: Catalog | None = None) -> "ExpertMemory":
        """The memory of ``costs``' model beside its machine.

        Raises:
            ForestageError: where the unit cannot run the model's experts, they do not fit, or the link is not known.
        """
        device = (load_catalog() if catalog is None else catalog).dram.find(settings.dram)
        weight_format = _format(settings, costs.model)
        tokens = settings.tokens_per_read or weight_format.most_tokens
        if tokens > weight_format.most_tokens or tokens == 3:
            remedy = f"{weight_format.name} weights take a power of two up to {weight_format.most_tokens}"
            raise refused("tokens_per_read", f"{tokens}: {remedy}")
        own, groups = _groups(settings, device)
        slices = slices_of(costs.model.expert_intermediate, own, weight_format)
        rows = max(slices)
        most_inputs = -(-max(costs.model.hidden, rows, 64) // 32) * 32
        parameters = UnitParameters.parse(
            {"device": device, "max_inputs": most_inputs, "bus_phases": device.pseudo_channels_per_command_bus},
            origin=f"in_memory: dram {device.name}",
        )
        memory = cls(
            settings=settings,
            model=costs.model,
            parameters=parameters,
            slice_rows=rows,
            slices=sum(slices.values()),
            weight_format=weight_format,
            tokens_per_read=tokens,
            pseudo_channels=own,
            groups=groups,
            link_bytes_per_s=min(_link(settings, costs), round(own * device.pseudo_channel_gb_per_s * 1e9)),
        )
        memory.check_capacity()
        return memory

    @property
    def device(self) -> DramRecord:
        """The DRAM device."""
        return self.parameters.device

    def program(self, tokens: int) -> Program:
        """A slice for ``tokens`` tokens, at most ``tokens_per_read``, of weights that are laid out for as many."""
        laid_out = self._program(self.tokens_per_read)
        # Fewer tokens have more accumulators each and so larger tiles, which lie otherwise, unless there are few rows:
        # it runs for the least number of tokens whose tiles are those that are there.
        for taken in range(tokens, self.tokens_per_read):
            made = self._program(taken)
            if [phase.tiles for phase in made.phases] == [phase.tiles for phase in laid_out.phases]:
                return made
        return laid_out

    def _program(self, tokens: int) -> Program:
        shape = ExpertShape.of(self.model)
        return expert_program(
            self.parameters,
            shape.hidden,
            self.slice_rows,
            self.weight_format,
            shape.kind,
            tokens=tokens,
            gate_up_bias=shape.bias,
            down_bias=shape.bias,
        )

    @property
    def stored_expert_bytes(self) -> int:
        """What an expert takes there: whole rows of the banks, and the model's own format if that is another."""
        row_sets = self._program(self.tokens_per_read).row_sets
        stored = self.pseudo_channels * row_sets * self.parameters.blocks.blocks * self.device.row_bytes
        own = FORMATS.get(self.model.expert_weight_format)
        return stored + (0 if own is self.weight_format else self.model.expert_bytes)

    def check_capacity(self) -> None:
        """Refuse a memory that does not hold all routed experts of the model.

        Raises:
            ForestageError: saying how many stacks would.
        """
        of_group = -(-self.model.experts // self.groups) * self.model.moe_layers * self.stored_expert_bytes
        share = self.pseudo_channels / self.device.pseudo_channels
        if of_group > share * self.settings.stack_gb * 1e9:
            needed_gb = of_group / share / 1e9
            raise refused(
                "stacks",
                f"{self.settings.stacks} of {self.settings.stack_gb:g} GB do not hold the experts of "
                f"{self.model.name}, {needed_gb:.4g} GB a stack; give more stacks, or larger ones (stack_gb)",
            )

    def expert_ps(self, tokens: int) -> int:
        """Until an expert's outputs for ``tokens`` tokens have passed the pins, in a group that does nothing else."""
        passes, rest = divmod(tokens, self.tokens_per_read)
        clocks = passes * self.pass_ck[-1] + (self.pass_ck[rest - 1] if rest else 0)
        bursts = tokens * -(-self.model.hidden * (BF16_BYTES + FP32_BYTES) // self.device.burst_bytes)
        return math.ceil((clocks + bursts * self.device.burst_ck) * self.device.tck_ns * 1000)

    @cached_property
    def pass_ck(self) -> tuple[float, ...]:
        """Clocks of a pass of 1 … ``tokens_per_read`` tokens."""
        tokens = range(1, self.tokens_per_read + 1)
        return tuple(pass_clocks(self.parameters, self.program(n), refresh=self.settings.refresh) for n in tokens)

    def output_ps(self) -> int:
        """The partial outputs of one token of one expert over the link."""
        sums = self.slices
        if self.settings.partial_sums == "stack":
            sums = -(-sums // self.device.pseudo_channels)
        return transfer_ps(sums * self.model.hidden * FP32_BYTES, self.link_bytes_per_s)

    def input_ps(self, tokens: int) -> int:
        """The inputs of ``tokens`` tokens over the link."""
        return transfer_ps(tokens * self.model.hidden * BF16_BYTES, self.link_bytes_per_s)

    @property
    def shared_share(self) -> float:
        """Share of its rate that the memory has while the link moves an expert."""
        device = self.device
        visited = device.bank_groups * device.row_bytes
        bursts = device.bank_groups * device.row_bursts * max(device.burst_ck, device.tccd_s_ck)
        act_ck = max(device.trrd_s_ck, math.ceil(device.activate_command_ck), device.tfaw_ck / 4)
        # Close, open a row in each bank group, read them, close, open the blocks' banks.
        away_ck = 2.0 * (device.trtp_l_ck + device.trp_ck) + 2 * device.trcd_read_ck + bursts
        away_ck += (device.bank_groups - 1 + self.parameters.blocks.blocks - 1) * act_ck
        visits_per_s = self.link_bytes_per_s / self.pseudo_channels / visited
        lost = min(1.0, visits_per_s * away_ck * device.tck_ns * 1e-9)
        return 1.0 - lost / self.groups


def in_memory_durations(
    costs: CostModel,
    config: SimulationConfig,
    settings: InMemory,
    *,
    most_tokens: int,
    largest_step: int,
    catalog: Catalog | None = None,
) -> Durations:
    """As `perfmodel.durations.durations`, where the memory computes, and experts are fetched from it.

    Args:
        costs: of the model on the machine.
        config: latency and chunks of transfers.
        settings: of the memory.
        most_tokens: of one step that choose one expert, at most.
        largest_step: tokens of the largest timed step.
        catalog: of DRAM devices; the shipped one and the user's by default.

    Raises:
        ForestageError: as `ExpertMemory.of`, or for an expert or a duration that is too large.
    """
    check_expert(costs)
    memory = ExpertMemory.of(settings, costs, catalog)
    work = costs.expert_bytes * RATE
    free = np.zeros(most_tokens + 1, np.int64)
    free[1:] = [max(1, work // memory.expert_ps(tokens)) for tokens in range(1, most_tokens + 1)]
    expert_ps, compute_ps = device_times(costs, most_tokens)
    latency_ps = round(settings.latency_us * PS_PER_US)
    return Durations(
        expert_bytes=costs.expert_bytes,
        chunk_bytes=config.chunk_bytes,
        chunk_ps=transfer_chunks(costs.expert_bytes, memory.link_bytes_per_s, config),
        expert_ps=expert_ps,
        expert_compute_ps=compute_ps,
        host_work=work,
        host_free_rate=free,
        host_shared_rate=(free * memory.shared_share).astype(np.int64),
        host_groups=memory.groups,
        host_before_ps=latency_ps + memory.input_ps(largest_step),
        host_after_ps=latency_ps,
        host_token_ps=memory.output_ps(),
    )


def refused(setting: str, remedy: str) -> SettingError:
    """The error about a setting of the memory."""
    return SettingError(("in_memory", setting), remedy, message=f"in_memory: {setting}: {remedy}")


def _format(settings: InMemory, model: ModelRecord) -> WeightFormat:
    name = settings.weight_format or model.expert_weight_format
    if name not in FORMATS:
        known = ", ".join(FORMATS)
        raise refused("weight_format", f"{name} of {model.name} is none that the PIM unit has; give one of {known}")
    return FORMATS[name]


def _groups(settings: InMemory, device: DramRecord) -> tuple[int, int]:
    """Pseudo-channels of an expert, and groups of as many."""
    everything = settings.stacks * device.pseudo_channels
    own = settings.pseudo_channels_per_expert or device.pseudo_channels
    whole = device.pseudo_channels % own == 0 or own % device.pseudo_channels == 0
    if everything % own or not whole:
        remedy = "give a part of a stack, or whole stacks, that go into all of them evenly"
        raise refused(
            "pseudo_channels_per_expert", f"{own} in {settings.stacks} stacks of {device.pseudo_channels}: {remedy}"
        )
    return own, everything // own


def _link(settings: InMemory, costs: CostModel) -> int:
    """Bytes a second of the link between memory and device."""
    if settings.where == "host":
        return costs.link_bytes_per_s
    gb_per_s = (
        costs.machine.device_link_gb_per_s if settings.device_link_gb_per_s is None else settings.device_link_gb_per_s
    )
    if gb_per_s is None:
        raise refused("device_link_gb_per_s", f"not in the catalogue for {costs.machine.name}; give it")
    return round(gb_per_s * 1e9)


def pass_clocks(parameters: UnitParameters, program: Program, *, refresh: bool) -> float:
    """Clocks of a pass until its last readback; with refresh the mean over `BEGINNINGS` within tREFI."""
    interval = parameters.device.trefi_ck
    dues = [interval * number // BEGINNINGS for number in range(1, BEGINNINGS + 1)] if refresh else [None]
    runs = [unit_clocks(program, parameters, refresh_in_ck=due) for due in dues]
    return sum(run.compute_ck + run.readout_ck for run in runs) / len(runs)
