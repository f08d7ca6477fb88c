// The DMA between a far memory and a staging memory.
//
// The file `descriptors` has a line "source destination bytes", hexadecimal, each; `ends.log` is written: a line
// "accepted ended error" each, cycles counted as the memories do. Plusargs: the registers `outstanding`, `share` and
// `silence`; `patience`: cycles without any handshake after which the bench gives up; `waits`: chance in 256ths that a
// descriptor is not offered yet, or an end not taken, in a cycle.
module bench #(
  parameter int ADDRESS_BITS = 48,
  parameter int DATA_BITS = 512,
  parameter int OUTSTANDING_BITS = 5
) (
  input  logic clk,
  input  logic rst,
  input  logic keep,
  output logic finished,
  output logic hung,
  output int   breaches,
  output int   strays,
  output longint unsigned cycles
);
  localparam int LENGTH_BITS = 32;
  logic arvalid, arready, rlast, rvalid, rready, awvalid, awready, wlast, wvalid, wready, bvalid, bready;
  logic [ADDRESS_BITS-1:0] araddr, awaddr;
  logic [7:0] arlen, awlen;
  logic [2:0] arsize, awsize;
  logic [1:0] arburst, awburst, rresp, bresp;
  logic arid, rid, awid, bid;
  logic [DATA_BITS-1:0] rdata, wdata;
  logic [DATA_BITS/8-1:0] wstrb;

  logic [2*ADDRESS_BITS+LENGTH_BITS-1:0] descriptor;
  logic offered, taken, ended, end_ready, moved, waited, asked, busy, stray;
  logic [2:0] error;
  int far_breaches, staging_breaches;

  dma dma (
    .clk, .rst,
    .descriptors__payload(descriptor), .descriptors__valid(offered), .descriptors__ready(taken),
    .ends__payload(error), .ends__valid(ended), .ends__ready(end_ready),
    .outstanding(OUTSTANDING_BITS'(outstanding)), .share(9'(share)), .silence(20'(silence)),
    .busy, .moved, .waited, .asked, .stray,
    .far__arid(arid), .far__araddr(araddr), .far__arlen(arlen), .far__arsize(arsize), .far__arburst(arburst),
    .far__arvalid(arvalid), .far__arready(arready), .far__rid(rid), .far__rdata(rdata), .far__rresp(rresp),
    .far__rlast(rlast), .far__rvalid(rvalid), .far__rready(rready),
    .staging__awid(awid), .staging__awaddr(awaddr), .staging__awlen(awlen), .staging__awsize(awsize),
    .staging__awburst(awburst), .staging__awvalid(awvalid), .staging__awready(awready), .staging__wdata(wdata),
    .staging__wstrb(wstrb), .staging__wlast(wlast), .staging__wvalid(wvalid), .staging__wready(wready),
    .staging__bid(bid), .staging__bresp(bresp), .staging__bvalid(bvalid), .staging__bready(bready)
  );

  axi4_ram #(.NAME("far"), .ADDRESS_BITS(ADDRESS_BITS), .DATA_BITS(DATA_BITS)) far (
    .clk, .rst, .keep, .arid, .araddr, .arlen, .arvalid, .arready, .rid, .rdata, .rresp, .rlast, .rvalid, .rready,
    .awid('0), .awaddr('0), .awlen('0), .awvalid('0), .awready(), .wdata('0), .wstrb('0), .wlast('0), .wvalid('0),
    .wready(), .bid(), .bresp(), .bvalid(), .bready('0)
  );
  axi4_ram #(.NAME("staging"), .ADDRESS_BITS(ADDRESS_BITS), .DATA_BITS(DATA_BITS)) staging (
    .clk, .rst, .keep, .awid, .awaddr, .awlen, .awvalid, .awready, .wdata, .wstrb, .wlast, .wvalid, .wready, .bid,
    .bresp, .bvalid, .bready, .arid('0), .araddr('0), .arlen('0), .arvalid('0), .arready(), .rid(), .rdata(), .rresp(),
    .rlast(), .rvalid(), .rready('0)
  );
  axi4_checker #(.NAME("far"), .ADDRESS_BITS(ADDRESS_BITS), .DATA_BITS(DATA_BITS)) far_checker (
    .clk, .rst, .keep, .breaches(far_breaches), .arid, .araddr, .arlen, .arsize, .arburst, .arvalid, .arready, .rid,
    .rdata, .rresp, .rlast, .rvalid, .rready, .awid('0), .awaddr('0), .awlen('0), .awsize('0), .awburst('0),
    .awvalid('0), .awready('0), .wdata('0), .wstrb('0), .wlast('0), .wvalid('0), .wready('0), .bid('0), .bresp('0),
    .bvalid('0), .bready('0)
  );
  axi4_checker #(.NAME("staging"), .ADDRESS_BITS(ADDRESS_BITS), .DATA_BITS(DATA_BITS)) staging_checker (
    .clk, .rst, .keep, .breaches(staging_breaches), .awid, .awaddr, .awlen, .awsize, .awburst, .awvalid, .awready,
    .wdata, .wstrb, .wlast, .wvalid, .wready, .bid, .bresp, .bvalid, .bready, .arid('0), .araddr('0), .arlen('0),
    .arsize('0), .arburst('0), .arvalid('0), .arready('0), .rid('0), .rdata('0), .rresp('0), .rlast('0), .rvalid('0),
    .rready('0)
  );
  assign breaches = far_breaches + staging_breaches;

  int unsigned outstanding, share, silence, patience, waits, seed, quiet;
  longint unsigned draw, waiting;
  longint unsigned accepted [$];
  int file, ends_file;
  logic all_read, kept;
  logic [ADDRESS_BITS-1:0] source, destination;
  logic [LENGTH_BITS-1:0] length;

  initial begin
    if (!$value$plusargs("outstanding=%d", outstanding)) outstanding = 1;
    if (!$value$plusargs("share=%d", share)) share = 256;
    if (!$value$plusargs("silence=%d", silence)) silence = 4096;
    if (!$value$plusargs("patience=%d", patience)) patience = 100000;
    if (!$value$plusargs("waits=%d", waits)) waits = 0;
    if (!$value$plusargs("seed=%d", seed)) seed = 0;
    draw = longint'(seed) * 64'h9E3779B97F4A7C15 + 1;
    file = $fopen("descriptors", "r");
    ends_file = $fopen("ends.log", "w");
    if (file == 0) $fatal(1, "bench: no file of descriptors");
  end

  always @(posedge clk) begin
    kept <= keep;
    if (rst) begin
      {offered, end_ready, finished, hung, all_read} <= '0;
      cycles = 0; strays = 0; quiet = 0;
    end else begin
      cycles = cycles + 1;
      draw = draw ^ (draw << 13); draw = draw ^ (draw >> 7); draw = draw ^ (draw << 17);
      strays = strays + 32'(stray);
      if (offered && taken) accepted.push_back(cycles);
      if (ended && end_ready) $fwrite(ends_file, "%0d %0d %0d\n", accepted.pop_front(), cycles, error);
      if (!offered || taken) begin
        offered <= 1'b0;
        if (!all_read && (waits == 0 || draw[7:0] >= waits[7:0])) begin
          if ($fscanf(file, "%h %h %h", source, destination, length) == 3) begin
            descriptor <= {length, destination, source};
            offered <= 1'b1;
          end else all_read <= 1'b1;
        end
      end
      end_ready <= waits == 0 || draw[15:8] >= waits[7:0];
      quiet = (arvalid && arready) || (rvalid && rready) || (awvalid && awready) || (wvalid && wready)
              || (bvalid && bready) || (ended && end_ready) || (offered && taken) ? 0 : quiet + 1;
      hung <= quiet >= patience;
      finished <= quiet >= patience || (all_read && !offered && accepted.size() == 0);
    end
    if (keep && !kept) $fflush(ends_file);
  end
endmodule
