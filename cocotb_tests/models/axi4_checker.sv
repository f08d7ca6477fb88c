// The rules of AXI4 on one bus, looked at from outside; each breach is a line "cycle rule" of the file NAME.breaches.
//
// Rules that are not AXI4's but the managers' own (rtl/bus/axi4.py): one identifier, 0; INCR; whole beats of the bus;
// data not before their address. With the plusarg +NAME_faulty nothing is said of how many beats come on R, and of where
// rlast is, as the memory does that wrongly on purpose.
module axi4_checker #(
  parameter string NAME = "ram",
  parameter int ADDRESS_BITS = 48,
  parameter int DATA_BITS = 512,
  parameter int ID_BITS = 1
) (
  input logic                    clk,
  input logic                    rst,
  input logic                    keep,
  output int                     breaches,
  input logic [ID_BITS-1:0]      arid,
  input logic [ADDRESS_BITS-1:0] araddr,
  input logic [7:0]              arlen,
  input logic [2:0]              arsize,
  input logic [1:0]              arburst,
  input logic                    arvalid,
  input logic                    arready,
  input logic [ID_BITS-1:0]      rid,
  input logic [DATA_BITS-1:0]    rdata,
  input logic [1:0]              rresp,
  input logic                    rlast,
  input logic                    rvalid,
  input logic                    rready,
  input logic [ID_BITS-1:0]      awid,
  input logic [ADDRESS_BITS-1:0] awaddr,
  input logic [7:0]              awlen,
  input logic [2:0]              awsize,
  input logic [1:0]              awburst,
  input logic                    awvalid,
  input logic                    awready,
  input logic [DATA_BITS-1:0]    wdata,
  input logic [DATA_BITS/8-1:0]  wstrb,
  input logic                    wlast,
  input logic                    wvalid,
  input logic                    wready,
  input logic [ID_BITS-1:0]      bid,
  input logic [1:0]              bresp,
  input logic                    bvalid,
  input logic                    bready
);
  localparam int SIZE = $clog2(DATA_BITS / 8);

  longint unsigned now;
  int file;
  logic faulty;
  // What was offered and not taken in the last cycle.
  logic ar_waits, r_waits, aw_waits, w_waits, b_waits;
  logic [ID_BITS+ADDRESS_BITS+12:0] ar_was, aw_was;
  logic [ID_BITS+DATA_BITS+2:0] r_was;
  logic [DATA_BITS+DATA_BITS/8:0] w_was;
  logic [ID_BITS+1:0] b_was;
  // Bursts asked for, oldest first: beats that are still to come.
  int reads [$], offered [$];
  int addressed, filled;

  task automatic must(input logic holds, input string rule);
    if (!holds) begin
      breaches = breaches + 1;
      $fwrite(file, "%0d %s\n", now, rule);
    end
  endtask

  task automatic legal(input string channel, input logic [ADDRESS_BITS-1:0] address, input logic [7:0] length,
                       input logic [2:0] size, input logic [1:0] burst, input logic [ID_BITS-1:0] id);
    longint unsigned first, last;
    first = longint'(address);
    last = first + ((longint'(length) + 1) << SIZE) - 1;
    must(first >> 12 == last >> 12, {channel, ": a burst crosses 4 KiB"});
    must(32'(size) == SIZE && first % (DATA_BITS / 8) == 0, {channel, ": not whole beats"});
    must(burst == 2'b01, {channel, ": not INCR"});
    must(id == '0, {channel, ": another identifier than 0"});
  endtask

  initial begin
    breaches = 0;
    file = $fopen({NAME, ".breaches"}, "w");
    faulty = $test$plusargs({NAME, "_faulty"}) != 0;
  end

  always @(posedge clk) begin
    if (rst) begin
      now = 0;
      {ar_waits, r_waits, aw_waits, w_waits, b_waits} = '0;
      reads.delete(); offered.delete();
      addressed = 0; filled = 0;
    end else begin
      now = now + 1;
      must(!$isunknown({arvalid, arready, rvalid, rready, awvalid, awready, wvalid, wready, bvalid, bready}),
           "a handshake is neither 0 nor 1");
      if (ar_waits) must(arvalid && ar_was == {arid, araddr, arlen, arsize, arburst}, "ar: not kept until taken");
      if (r_waits) must(rvalid && r_was == {rid, rdata, rresp, rlast}, "r: not kept until taken");
      if (aw_waits) must(awvalid && aw_was == {awid, awaddr, awlen, awsize, awburst}, "aw: not kept until taken");
      if (w_waits) must(wvalid && w_was == {wdata, wstrb, wlast}, "w: not kept until taken");
      if (b_waits) must(bvalid && b_was == {bid, bresp}, "b: not kept until taken");

      if (rvalid && !r_waits) begin
        must(reads.size() != 0 || faulty, "r: answers nothing");
        if (reads.size() != 0 && !faulty) must(rlast == (reads[0] == 1), "r: rlast at another beat than the last");
        must(rid == '0, "r: of another identifier");
      end
      if (rvalid && rready && reads.size() != 0) begin
        reads[0] = reads[0] - 1;
        if (reads[0] == 0) void'(reads.pop_front());
      end
      if (arvalid && !ar_waits) legal("ar", araddr, arlen, arsize, arburst, arid);
      if (arvalid && arready) reads.push_back(32'(arlen) + 1);

      if (bvalid && !b_waits) begin
        must(addressed != 0 && filled != 0, "b: answers no burst that is complete");
        must(bid == '0, "b: of another identifier");
      end
      if (bvalid && bready) begin addressed = addressed - 1; filled = filled - 1; end
      if (awvalid && !aw_waits) begin
        legal("aw", awaddr, awlen, awsize, awburst, awid);
        offered.push_back(32'(awlen) + 1);
      end
      if (wvalid && !w_waits) begin
        must(offered.size() != 0, "w: data of no burst");
        if (offered.size() != 0) must(wlast == (offered[0] == 1), "w: wlast at another beat than the last");
      end
      if (wvalid && wready && offered.size() != 0) begin
        offered[0] = offered[0] - 1;
        if (offered[0] == 0) begin void'(offered.pop_front()); filled = filled + 1; end
      end
      if (awvalid && awready) addressed = addressed + 1;

      ar_waits = arvalid && !arready; ar_was = {arid, araddr, arlen, arsize, arburst};
      r_waits = rvalid && !rready; r_was = {rid, rdata, rresp, rlast};
      aw_waits = awvalid && !awready; aw_was = {awid, awaddr, awlen, awsize, awburst};
      w_waits = wvalid && !wready; w_was = {wdata, wstrb, wlast};
      b_waits = bvalid && !bready; b_was = {bid, bresp};
    end
    if (keep) $fflush(file);
  end
endmodule
