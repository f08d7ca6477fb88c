"""A stand-in for the PIM unit: it plays the twin's schedule and the twin's results on the unit's ports.

It knows nothing but the recording, and the sum of what the DRAM must have answered; so the bench around it can be seen
to agree, and to disagree where the recording is changed.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cocotb_tests.pim_unit.command_log import CommandLog
from cocotb_tests.pim_unit.jobs import OutputBeats, UnitJob, output_beats
from pim_model.unit.parameters import UnitParameters
from pim_model.unit.schedule import UnitCommand
from rtl.pim.base_die.layouts import ColumnCommand, RowCommand, column_port_layout, row_port_layout

_MASK = (1 << 64) - 1


@dataclass
class Recording:
    """What is played.

    Attributes:
        log: Commands and their clocks.
        beats: Results.
        checksum: Of the DRAM's answers (`checksum`).
        x_beats: How many beats of x are taken.
    """

    log: CommandLog
    beats: OutputBeats
    checksum: int
    x_beats: int

    @classmethod
    def of(cls, job: UnitJob, parameters: UnitParameters, log: CommandLog) -> "Recording":
        """The twins' own."""
        chunks = -(-job.x.shape[1] // 16)
        return cls(
            log=log,
            beats=output_beats(job.program, parameters, job.expected.bits),
            checksum=checksum(job, log),
            x_beats=chunks * len(job.x),
        )

    def write(self, folder: Path, parameters: UnitParameters) -> list[str]:
        """Write it as the stand-in reads it; returns the simulator's arguments."""
        words = bus_words(self.log, parameters)
        last_ck = int(self.log.clock_ck[-1]) + 64
        texts = {name: [f"{at:06x}{word:08x}" for at, word in words[name]] + ["f" * 14] for name in ("row", "column")}
        texts["results"] = [
            f"{int(last):01x}{int(keep):02x}{int(word):016x}"
            for word, keep, last in zip(self.beats.data, self.beats.keep, self.beats.last, strict=True)
        ]
        texts["numbers"] = [f"{n:016x}" for n in (self.x_beats, last_ck, len(texts["results"]), self.checksum)]
        for name, lines in texts.items():
            (folder / name).write_text("\n".join(lines) + "\n")
        return [f"+{name}={folder / name}" for name in texts]


def checksum(job: UnitJob, log: CommandLog) -> int:
    """Of the columns that the PIMs of ``log`` read: each folded to 64 bits, rotated in one after the other."""
    total, rows = 0, [0, 0]
    for index in range(len(log)):
        half = int(log.half[index])
        if log.command[index] == UnitCommand.ACT:
            rows[half] = int(log.row[index]) - job.program.base_row
        elif log.command[index] == UnitCommand.PIM:
            column = job.contents[half, rows[half], log.address[index]]
            folded = int(np.bitwise_xor.reduce(np.ascontiguousarray(column).view("<u8").ravel()))
            total = (total << 1 & _MASK | total >> 63) ^ folded
    return total


def bus_words(log: CommandLog, parameters: UnitParameters) -> dict[str, list[tuple[int, int]]]:
    """Clocks and words of both ports."""
    words: dict[str, list[tuple[int, int]]] = {"row": [], "column": []}
    layouts = {"row": row_port_layout(parameters), "column": column_port_layout(parameters)}
    for index in range(len(log)):
        name = UnitCommand(log.command[index]).name
        bus = "row" if name in RowCommand.__members__ else "column"
        half, block, row, address = (
            max(0, int(getattr(log, part)[index])) for part in ("half", "block", "row", "address")
        )
        fields = {"valid": 1, "half": half, "block": block}
        if bus == "row":
            fields |= {"command": RowCommand[name], "row": row}
        else:
            is_pim, is_load = name == "PIM", name == "LDI"
            fields |= {
                "command": ColumnCommand[name],
                "column": address if is_pim else 0,
                "register": address if is_load else 0,
            }
        words[bus].append((int(log.clock_ck[index]), layouts[bus].const(fields).as_value().value))
    return words


def recorded_unit_verilog(parameters: UnitParameters) -> str:
    """The stand-in: takes x, plays the commands, then gives the results, spoilt if the DRAM's answers were wrong."""
    layouts = {"row": row_port_layout(parameters), "column": column_port_layout(parameters)}
    is_pim = layouts["column"].const({"valid": 1, "command": ColumnCommand.PIM}).as_value().value
    mask = sum(
        (1 << layouts["column"][name].width) - 1 << layouts["column"][name].offset for name in ("valid", "command")
    )
    return _VERILOG.format(
        data_bits=256 * parameters.blocks.blocks,
        row_bits=layouts["row"].size,
        column_bits=layouts["column"].size,
        latency=parameters.device.cl_ck,
        is_pim=is_pim,
        mask=mask,
    )


_VERILOG = """
module pim_unit (
  input clk, input rst,
  input [255:0] x__tdata, input x__tlast, input x__tvalid, output x__tready,
  output [63:0] y__tdata, output [7:0] y__tkeep, output y__tlast, output y__tvalid, input y__tready,
  output reg [{row_bits}-1:0] row, output reg [{column_bits}-1:0] column, input [{data_bits}-1:0] column_data
);
  reg [55:0] rows [0:8191];
  reg [55:0] columns [0:8191];
  reg [75:0] results [0:8191];
  reg [63:0] numbers [0:3];  // beats of x, clock of the results, how many, checksum of the answers
  string file;
  initial begin
    if ($value$plusargs("row=%s", file)) $readmemh(file, rows);
    if ($value$plusargs("column=%s", file)) $readmemh(file, columns);
    if ($value$plusargs("results=%s", file)) $readmemh(file, results);
    if ($value$plusargs("numbers=%s", file)) $readmemh(file, numbers);
  end

  reg [15:0] beats;
  reg playing;
  reg [23:0] clock;
  reg [12:0] next_row, next_column, next_result;
  wire row_now = playing && rows[next_row][55:32] == clock;
  wire column_now = playing && columns[next_column][55:32] == clock;
  reg [{latency}-1:0] due;
  reg [63:0] folded, total;
  integer lane;
  always @* begin
    folded = 0;
    for (lane = 0; lane < {data_bits} / 64; lane = lane + 1) folded = folded ^ column_data[64 * lane +: 64];
  end

  assign x__tready = 1;
  assign y__tvalid = clock >= numbers[1][23:0] && next_result < numbers[2][12:0];
  assign y__tdata = results[next_result][63:0] ^ total ^ numbers[3];
  assign y__tkeep = results[next_result][71:64];
  assign y__tlast = results[next_result][72];
  wire unused = &{{1'b0, x__tdata, x__tlast}};

  always @(posedge clk) begin
    if (x__tvalid) begin
      beats <= beats + 1;
      if (beats == numbers[0][15:0] - 1) playing <= 1;
    end
    if (playing) clock <= clock + 1;
    row <= row_now ? rows[next_row][{row_bits}-1:0] : 0;
    column <= column_now ? columns[next_column][{column_bits}-1:0] : 0;
    if (row_now) next_row <= next_row + 1;
    if (column_now) next_column <= next_column + 1;
    due <= {{due[{latency}-2:0], (column & {mask}) == {is_pim}}};
    if (due[{latency}-1]) total <= {{total[62:0], total[63]}} ^ folded;
    if (y__tvalid && y__tready) next_result <= next_result + 1;
    if (rst) begin
      beats <= 0; playing <= 0; clock <= 0; row <= 0; column <= 0; due <= 0; total <= 0;
      next_row <= 0; next_column <= 0; next_result <= 0;
    end
  end
endmodule
"""
