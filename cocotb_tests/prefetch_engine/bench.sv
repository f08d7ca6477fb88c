// The prefetch engine between memory models and a machine that runs layers; whatever it does is logged with its cycle.
//
// Python gives the widths, configures over `control`, sets the times and raises `go`; cycles are counted from there on,
// and logged until `keep` has risen. Several runs may follow each other: `go` and `keep` fall, and all begins anew.
// Logs are files in the simulator's folder, of each run its own, `RUN.NAME.log` with a line a payload: the cycle in ten
// hexadecimal digits, then the payload. They can be read while they grow. Memories are `axi4_ram`s of the names far,
// staging and text, which have their plusargs and files.
`define LOG(which, valid, payload) if (valid) $fwrite(logs[which], "%h%h\n", cycle, payload)

module bench #(
    parameter int CONTROL_BITS = 1,
    parameter int ADDRESS_BITS = 1,
    parameter int TEXT_ADDRESS_BITS = 1,
    parameter int MOST_EVENTS = 1,
    parameter int EVENT_BITS = 1,
    parameter int EVENT_FIRST_BIT = 1,
    parameter int NOTICE_BITS = 1,
    parameter int COMMAND_BITS = 1,
    parameter int ACTION_BITS = 1,
    parameter int DONE_BITS = 1,
    parameter int PREDICTION_BITS = 1,
    parameter int ERROR_BITS = 1,
    parameter int STOP_BITS = 1,
    parameter int SCORE_BITS = 1,
    parameter int ROW_ADDRESS_BITS = 1,
    parameter int ROW_BITS = 1
) (
    input wire rst,
    input wire [CONTROL_BITS-1:0] control__awaddr,
    input wire [3-1:0] control__awprot,
    input wire control__awvalid,
    output wire control__awready,
    input wire [32-1:0] control__wdata,
    input wire [4-1:0] control__wstrb,
    input wire control__wvalid,
    output wire control__wready,
    output wire [2-1:0] control__bresp,
    output wire control__bvalid,
    input wire control__bready,
    input wire [CONTROL_BITS-1:0] control__araddr,
    input wire [3-1:0] control__arprot,
    input wire control__arvalid,
    output wire control__arready,
    output wire [32-1:0] control__rdata,
    output wire [2-1:0] control__rresp,
    output wire control__rvalid,
    input wire control__rready,
    output wire interrupt,
    input wire go,
    input wire keep,
    input wire [31:0] count,
    input wire [31:0] token_cycles,
    input wire [31:0] gate_cycles,
    input wire [31:0] layer_cycles,
    input wire [31:0] expert_cycles,
    input wire [8:0] share,
    input wire [31:0] seed,
    output wire finished,
    output wire [31:0] accepted,
    output reg [39:0] cycle,
    output wire [31:0] breaches
);

  // The circuits' clock, of 2 ns, is made here: one of cocotb's would take a fifth of a simulation's time. Python's
  // rises half a cycle earlier: it sees what the circuits see at their edge, and what it sets is taken over there.
  reg clock = 0;
  wire clk = !clock;
  always #1 clock = !clock;

  reg rst_now;
  reg [CONTROL_BITS-1:0] control__awaddr_now;
  reg [3-1:0] control__awprot_now;
  reg control__awvalid_now;
  reg [32-1:0] control__wdata_now;
  reg [4-1:0] control__wstrb_now;
  reg control__wvalid_now;
  reg control__bready_now;
  reg [CONTROL_BITS-1:0] control__araddr_now;
  reg [3-1:0] control__arprot_now;
  reg control__arvalid_now;
  reg control__rready_now;
  reg go_now;
  reg keep_now;
  reg [31:0] count_now;
  reg [31:0] token_cycles_now;
  reg [31:0] gate_cycles_now;
  reg [31:0] layer_cycles_now;
  reg [31:0] expert_cycles_now;
  reg [8:0] share_now;
  reg [31:0] seed_now;
  always @(posedge clock) begin
    rst_now <= rst;
    control__awaddr_now <= control__awaddr;
    control__awprot_now <= control__awprot;
    control__awvalid_now <= control__awvalid;
    control__wdata_now <= control__wdata;
    control__wstrb_now <= control__wstrb;
    control__wvalid_now <= control__wvalid;
    control__bready_now <= control__bready;
    control__araddr_now <= control__araddr;
    control__arprot_now <= control__arprot;
    control__arvalid_now <= control__arvalid;
    control__rready_now <= control__rready;
    go_now <= go;
    keep_now <= keep;
    count_now <= count;
    token_cycles_now <= token_cycles;
    gate_cycles_now <= gate_cycles;
    layer_cycles_now <= layer_cycles;
    expert_cycles_now <= expert_cycles;
    share_now <= share;
    seed_now <= seed;
  end

  wire event_valid, event_ready, notice_valid, notice_ready;
  wire [EVENT_BITS-1:0] event_payload;
  wire [NOTICE_BITS-1:0] notice_payload;

  wire far__arid;
  wire [ADDRESS_BITS-1:0] far__araddr;
  wire [8-1:0] far__arlen;
  wire [3-1:0] far__arsize;
  wire [2-1:0] far__arburst;
  wire far__arvalid;
  wire far__arready;
  wire far__rid;
  wire [512-1:0] far__rdata;
  wire [2-1:0] far__rresp;
  wire far__rlast;
  wire far__rvalid;
  wire far__rready;
  wire staging__awid;
  wire [ADDRESS_BITS-1:0] staging__awaddr;
  wire [8-1:0] staging__awlen;
  wire [3-1:0] staging__awsize;
  wire [2-1:0] staging__awburst;
  wire staging__awvalid;
  wire staging__awready;
  wire [512-1:0] staging__wdata;
  wire [64-1:0] staging__wstrb;
  wire staging__wlast;
  wire staging__wvalid;
  wire staging__wready;
  wire staging__bid;
  wire [2-1:0] staging__bresp;
  wire staging__bvalid;
  wire staging__bready;
  wire text__arid;
  wire [TEXT_ADDRESS_BITS-1:0] text__araddr;
  wire [8-1:0] text__arlen;
  wire [3-1:0] text__arsize;
  wire [2-1:0] text__arburst;
  wire text__arvalid;
  wire text__arready;
  wire text__rid;
  wire [512-1:0] text__rdata;
  wire [2-1:0] text__rresp;
  wire text__rlast;
  wire text__rvalid;
  wire text__rready;
  wire text__awid;
  wire [TEXT_ADDRESS_BITS-1:0] text__awaddr;
  wire [8-1:0] text__awlen;
  wire [3-1:0] text__awsize;
  wire [2-1:0] text__awburst;
  wire text__awvalid;
  wire text__awready;
  wire [512-1:0] text__wdata;
  wire [64-1:0] text__wstrb;
  wire text__wlast;
  wire text__wvalid;
  wire text__wready;
  wire text__bid;
  wire [2-1:0] text__bresp;
  wire text__bvalid;
  wire text__bready;
  wire commands_valid, actions_valid, done_valid, predictions_valid, errors_valid, stops_valid, table_writes_valid;
  wire [COMMAND_BITS-1:0] commands_payload;
  wire [ACTION_BITS-1:0] actions_payload;
  wire [DONE_BITS-1:0] done_payload;
  wire [PREDICTION_BITS-1:0] predictions_payload;
  wire [ERROR_BITS-1:0] errors_payload;
  wire [STOP_BITS-1:0] stops_payload;
  wire [SCORE_BITS-1:0] scores_payload;  // the lowest bit: valid
  wire [ROW_ADDRESS_BITS-1:0] table_writes_address;
  wire [ROW_BITS-1:0] table_writes_row;

  int far_breaches, staging_breaches, text_breaches;

  prefetch_engine engine (
      .clk(clock),
      .rst(rst_now),
      .control__awaddr(control__awaddr_now),
      .control__awprot(control__awprot_now),
      .control__awvalid(control__awvalid_now),
      .control__awready(control__awready),
      .control__wdata(control__wdata_now),
      .control__wstrb(control__wstrb_now),
      .control__wvalid(control__wvalid_now),
      .control__wready(control__wready),
      .control__bresp(control__bresp),
      .control__bvalid(control__bvalid),
      .control__bready(control__bready_now),
      .control__araddr(control__araddr_now),
      .control__arprot(control__arprot_now),
      .control__arvalid(control__arvalid_now),
      .control__arready(control__arready),
      .control__rdata(control__rdata),
      .control__rresp(control__rresp),
      .control__rvalid(control__rvalid),
      .control__rready(control__rready_now),
      .far__arid(far__arid),
      .far__araddr(far__araddr),
      .far__arlen(far__arlen),
      .far__arsize(far__arsize),
      .far__arburst(far__arburst),
      .far__arvalid(far__arvalid),
      .far__arready(far__arready),
      .far__rid(far__rid),
      .far__rdata(far__rdata),
      .far__rresp(far__rresp),
      .far__rlast(far__rlast),
      .far__rvalid(far__rvalid),
      .far__rready(far__rready),
      .staging__awid(staging__awid),
      .staging__awaddr(staging__awaddr),
      .staging__awlen(staging__awlen),
      .staging__awsize(staging__awsize),
      .staging__awburst(staging__awburst),
      .staging__awvalid(staging__awvalid),
      .staging__awready(staging__awready),
      .staging__wdata(staging__wdata),
      .staging__wstrb(staging__wstrb),
      .staging__wlast(staging__wlast),
      .staging__wvalid(staging__wvalid),
      .staging__wready(staging__wready),
      .staging__bid(staging__bid),
      .staging__bresp(staging__bresp),
      .staging__bvalid(staging__bvalid),
      .staging__bready(staging__bready),
      .text__arid(text__arid),
      .text__araddr(text__araddr),
      .text__arlen(text__arlen),
      .text__arsize(text__arsize),
      .text__arburst(text__arburst),
      .text__arvalid(text__arvalid),
      .text__arready(text__arready),
      .text__rid(text__rid),
      .text__rdata(text__rdata),
      .text__rresp(text__rresp),
      .text__rlast(text__rlast),
      .text__rvalid(text__rvalid),
      .text__rready(text__rready),
      .text__awid(text__awid),
      .text__awaddr(text__awaddr),
      .text__awlen(text__awlen),
      .text__awsize(text__awsize),
      .text__awburst(text__awburst),
      .text__awvalid(text__awvalid),
      .text__awready(text__awready),
      .text__wdata(text__wdata),
      .text__wstrb(text__wstrb),
      .text__wlast(text__wlast),
      .text__wvalid(text__wvalid),
      .text__wready(text__wready),
      .text__bid(text__bid),
      .text__bresp(text__bresp),
      .text__bvalid(text__bvalid),
      .text__bready(text__bready),
      .observed__commands__valid(commands_valid),
      .observed__commands__payload(commands_payload),
      .observed__actions__valid(actions_valid),
      .observed__actions__payload(actions_payload),
      .observed__done__valid(done_valid),
      .observed__done__payload(done_payload),
      .observed__predictions__valid(predictions_valid),
      .observed__predictions__payload(predictions_payload),
      .observed__errors__valid(errors_valid),
      .observed__errors__payload(errors_payload),
      .observed__scores(scores_payload),
      .observed__stops__valid(stops_valid),
      .observed__stops__payload(stops_payload),
      .observed__table_writes__valid(table_writes_valid),
      .observed__table_writes__address(table_writes_address),
      .observed__table_writes__row(table_writes_row),
      .events__valid(event_valid),
      .events__ready(event_ready),
      .events__payload(event_payload),
      .notices__valid(notice_valid),
      .notices__ready(notice_ready),
      .notices__payload(notice_payload),
      .interrupt(interrupt)
  );

  runner #(
      .EVENT_BITS(EVENT_BITS),
      .FIRST_BIT(EVENT_FIRST_BIT),
      .MOST_EVENTS(MOST_EVENTS)
  ) runner (
      .clk(clock),
      .rst(rst_now),
      .go(go_now),
      .count(count_now),
      .token_cycles(token_cycles_now),
      .gate_cycles(gate_cycles_now),
      .layer_cycles(layer_cycles_now),
      .expert_cycles(expert_cycles_now),
      .event_share(share_now),
      .notice_share(share_now),
      .seed(seed_now),
      .event_valid(event_valid),
      .event_ready(event_ready),
      .event_payload(event_payload),
      .notice_valid(notice_valid),
      .notice_ready(notice_ready),
      .notice_kind(notice_payload[2:0]),
      .notice_wanted(notice_payload[NOTICE_BITS-1]),
      .finished(finished),
      .accepted(accepted)
  );

  axi4_ram #(
      .NAME("far"),
      .ADDRESS_BITS(ADDRESS_BITS)
  ) far_memory (
      .clk(clock),
      .rst(rst_now),
      .keep(keep_now),
      .arid(far__arid),
      .araddr(far__araddr),
      .arlen(far__arlen),
      .arvalid(far__arvalid),
      .arready(far__arready),
      .rid(far__rid),
      .rdata(far__rdata),
      .rresp(far__rresp),
      .rlast(far__rlast),
      .rvalid(far__rvalid),
      .rready(far__rready),
      .awid('0),
      .awaddr('0),
      .awlen('0),
      .awvalid('0),
      .awready(),
      .wdata('0),
      .wstrb('0),
      .wlast('0),
      .wvalid('0),
      .wready(),
      .bid(),
      .bresp(),
      .bvalid(),
      .bready('0)
  );

  axi4_checker #(
      .NAME("far"),
      .ADDRESS_BITS(ADDRESS_BITS)
  ) far_rules (
      .clk(clock),
      .rst(rst_now),
      .keep(keep_now),
      .breaches(far_breaches),
      .arid(far__arid),
      .araddr(far__araddr),
      .arlen(far__arlen),
      .arsize(far__arsize),
      .arburst(far__arburst),
      .arvalid(far__arvalid),
      .arready(far__arready),
      .rid(far__rid),
      .rdata(far__rdata),
      .rresp(far__rresp),
      .rlast(far__rlast),
      .rvalid(far__rvalid),
      .rready(far__rready),
      .awid('0),
      .awaddr('0),
      .awlen('0),
      .awsize(3'd6),
      .awburst(2'd1),
      .awvalid('0),
      .awready('0),
      .wdata('0),
      .wstrb('0),
      .wlast('0),
      .wvalid('0),
      .wready('0),
      .bid('0),
      .bresp('0),
      .bvalid('0),
      .bready('0)
  );

  axi4_ram #(
      .NAME("staging"),
      .ADDRESS_BITS(ADDRESS_BITS)
  ) staging_memory (
      .clk(clock),
      .rst(rst_now),
      .keep(keep_now),
      .arid('0),
      .araddr('0),
      .arlen('0),
      .arvalid('0),
      .arready(),
      .rid(),
      .rdata(),
      .rresp(),
      .rlast(),
      .rvalid(),
      .rready('0),
      .awid(staging__awid),
      .awaddr(staging__awaddr),
      .awlen(staging__awlen),
      .awvalid(staging__awvalid),
      .awready(staging__awready),
      .wdata(staging__wdata),
      .wstrb(staging__wstrb),
      .wlast(staging__wlast),
      .wvalid(staging__wvalid),
      .wready(staging__wready),
      .bid(staging__bid),
      .bresp(staging__bresp),
      .bvalid(staging__bvalid),
      .bready(staging__bready)
  );

  axi4_checker #(
      .NAME("staging"),
      .ADDRESS_BITS(ADDRESS_BITS)
  ) staging_rules (
      .clk(clock),
      .rst(rst_now),
      .keep(keep_now),
      .breaches(staging_breaches),
      .arid('0),
      .araddr('0),
      .arlen('0),
      .arsize(3'd6),
      .arburst(2'd1),
      .arvalid('0),
      .arready('0),
      .rid('0),
      .rdata('0),
      .rresp('0),
      .rlast('0),
      .rvalid('0),
      .rready('0),
      .awid(staging__awid),
      .awaddr(staging__awaddr),
      .awlen(staging__awlen),
      .awsize(staging__awsize),
      .awburst(staging__awburst),
      .awvalid(staging__awvalid),
      .awready(staging__awready),
      .wdata(staging__wdata),
      .wstrb(staging__wstrb),
      .wlast(staging__wlast),
      .wvalid(staging__wvalid),
      .wready(staging__wready),
      .bid(staging__bid),
      .bresp(staging__bresp),
      .bvalid(staging__bvalid),
      .bready(staging__bready)
  );

  axi4_ram #(
      .NAME("text"),
      .ADDRESS_BITS(TEXT_ADDRESS_BITS)
  ) text_memory (
      .clk(clock),
      .rst(rst_now),
      .keep(keep_now),
      .arid(text__arid),
      .araddr(text__araddr),
      .arlen(text__arlen),
      .arvalid(text__arvalid),
      .arready(text__arready),
      .rid(text__rid),
      .rdata(text__rdata),
      .rresp(text__rresp),
      .rlast(text__rlast),
      .rvalid(text__rvalid),
      .rready(text__rready),
      .awid(text__awid),
      .awaddr(text__awaddr),
      .awlen(text__awlen),
      .awvalid(text__awvalid),
      .awready(text__awready),
      .wdata(text__wdata),
      .wstrb(text__wstrb),
      .wlast(text__wlast),
      .wvalid(text__wvalid),
      .wready(text__wready),
      .bid(text__bid),
      .bresp(text__bresp),
      .bvalid(text__bvalid),
      .bready(text__bready)
  );

  axi4_checker #(
      .NAME("text"),
      .ADDRESS_BITS(TEXT_ADDRESS_BITS)
  ) text_rules (
      .clk(clock),
      .rst(rst_now),
      .keep(keep_now),
      .breaches(text_breaches),
      .arid(text__arid),
      .araddr(text__araddr),
      .arlen(text__arlen),
      .arsize(text__arsize),
      .arburst(text__arburst),
      .arvalid(text__arvalid),
      .arready(text__arready),
      .rid(text__rid),
      .rdata(text__rdata),
      .rresp(text__rresp),
      .rlast(text__rlast),
      .rvalid(text__rvalid),
      .rready(text__rready),
      .awid(text__awid),
      .awaddr(text__awaddr),
      .awlen(text__awlen),
      .awsize(text__awsize),
      .awburst(text__awburst),
      .awvalid(text__awvalid),
      .awready(text__awready),
      .wdata(text__wdata),
      .wstrb(text__wstrb),
      .wlast(text__wlast),
      .wvalid(text__wvalid),
      .wready(text__wready),
      .bid(text__bid),
      .bresp(text__bresp),
      .bvalid(text__bvalid),
      .bready(text__bready)
  );

  assign breaches = far_breaches + staging_breaches + text_breaches;

  localparam int LOGS = 10;
  typedef enum int {EVENTS, NOTICES, COMMANDS, ACTIONS, DONE, PREDICTIONS, ERRORS, SCORES, STOPS, TABLE_WRITES} log_t;
  localparam string NAMES[LOGS] = '{
      "events", "notices", "commands", "actions", "done", "predictions", "errors", "scores", "stops", "table_writes"
  };
  int logs[LOGS];
  int run = 0;
  reg went = 0;

  always @(posedge clock) begin
    went <= go_now;
    if (go_now && !went) begin
      for (int n = 0; n < LOGS; n++) begin
        if (run != 0) $fclose(logs[n]);
        logs[n] = $fopen($sformatf("%0d.%s.log", run, NAMES[n]), "w");
      end
      run = run + 1;
    end
    cycle <= go_now ? cycle + 1 : 0;
    if (go_now) begin
      `LOG(EVENTS, event_valid && event_ready, event_payload);
      `LOG(NOTICES, notice_valid && notice_ready, notice_payload);
      `LOG(COMMANDS, commands_valid, commands_payload);
      `LOG(ACTIONS, actions_valid, actions_payload);
      `LOG(DONE, done_valid, done_payload);
      `LOG(PREDICTIONS, predictions_valid, predictions_payload);
      `LOG(ERRORS, errors_valid, errors_payload);
      `LOG(SCORES, scores_payload[0], scores_payload);
      `LOG(STOPS, stops_valid, stops_payload);
      `LOG(TABLE_WRITES, table_writes_valid, ({table_writes_address, table_writes_row}));
    end
    // Whoever reads them meanwhile is a fraction of a second behind.
    if (went && (keep_now || cycle[13:0] == 0)) for (int n = 0; n < LOGS; n++) $fflush(logs[n]);
  end

`ifdef FORESTAGE_ACTIVITY
  // Toggles are counted from the first cycle in which an event may be offered; `counted` is high until the last is taken.
  wire counted = go_now && !finished;
  reg traced = 0;
  always @(posedge clock) begin
    if (counted && !traced) begin
      $dumpfile("activity.saif");
      $dumpvars;
    end
    traced <= traced || counted;
  end
`endif
endmodule
