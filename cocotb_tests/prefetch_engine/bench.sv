// The prefetch engine between memory models and a machine that runs layers; whatever it does is logged with its cycle.
//
// Python makes the widths (`ENGINE_…`), configures over `control`, sets the inputs and raises `go`; the engine's cycles are
// counted from there on. Logs are files in the folder `+logs=`, a line a payload: the cycle in ten hexadecimal digits,
// then the payload.
`define LOG(file, valid, payload) if (valid) $fwrite(file, "%h%h\n", now, payload)

module bench (
    input wire clk,
    input wire rst,
    input wire [`CONTROL_ADDRESS_BITS-1:0] control__awaddr,
    input wire [2:0] control__awprot,
    input wire control__awvalid,
    output wire control__awready,
    input wire [31:0] control__wdata,
    input wire [3:0] control__wstrb,
    input wire control__wvalid,
    output wire control__wready,
    output wire [1:0] control__bresp,
    output wire control__bvalid,
    input wire control__bready,
    input wire [`CONTROL_ADDRESS_BITS-1:0] control__araddr,
    input wire [2:0] control__arprot,
    input wire control__arvalid,
    output wire control__arready,
    output wire [31:0] control__rdata,
    output wire [1:0] control__rresp,
    output wire control__rvalid,
    input wire control__rready,
    output wire interrupt,
    input wire go,
    input wire [31:0] count,
    input wire [31:0] token_cycles,
    input wire [31:0] gate_cycles,
    input wire [31:0] layer_cycles,
    input wire [31:0] expert_cycles,
    input wire [15:0] latency,
    input wire [8:0] share,
    input wire [31:0] seed,
    output wire finished,
    output wire [31:0] accepted
);
