// A machine that runs layers, as far as the prefetch engine sees it: it offers the events of a file strictly in order,
// and takes the notices.
//
//   TOKEN    the first of its group token_cycles after the event before it was taken;
//   GATE     the first of its group gate_cycles after;
//   RELEASE  the first of its group layer_cycles after READY was told for every GATE, or after the work on experts,
//            whichever ends later.
//
// Others of a group (`first` is 0) in the cycle after the event before was taken. Work on experts: each that is told to be
// HERE, and each that is told to have ARRIVED while wanted, takes expert_cycles, one after the other. It is the model of
// `predictor.engine.environment`.
//
// A word of the file is an event below a bit that says that the engine must refuse it: nothing then waits for it. With a
// share below 256 a side moves only in so many of 256 cycles, at random. Each time `go` falls the file is read again.
module runner #(
    parameter EVENT_BITS = 64,
    parameter FIRST_BIT = 2,
    parameter MOST_EVENTS = 262144
) (
    input wire clk,
    input wire rst,
    input wire go,
    input wire [31:0] count,
    input wire [31:0] token_cycles,
    input wire [31:0] gate_cycles,
    input wire [31:0] layer_cycles,
    input wire [31:0] expert_cycles,
    input wire [8:0] event_share,
    input wire [8:0] notice_share,
    input wire [31:0] seed,
    output wire event_valid,
    input wire event_ready,
    output wire [EVENT_BITS-1:0] event_payload,
    input wire notice_valid,
    output wire notice_ready,
    input wire [2:0] notice_kind,
    input wire notice_wanted,
    output wire finished,
    output reg [31:0] accepted
);
  localparam [1:0] TOKEN = 2'd0, GATE = 2'd1;
  localparam [2:0] HERE = 3'd0, ARRIVED = 3'd2, READY = 3'd4;

  reg [EVENT_BITS:0] events[0:MOST_EVENTS-1];
  string path;
  reg went;
  initial if ($value$plusargs("events=%s", path)) $readmemh(path, events);

  reg [47:0] now, free_at, ready_at, work_until;
  reg [31:0] gates;  // that are not ready
  reg holding;
  reg [31:0] event_random, notice_random;

  function automatic [31:0] next_random(input [31:0] value);  // xorshift, Marsaglia 2003
    reg [31:0] x;
    x = value ^ (value << 13);
    x = x ^ (x >> 17);
    next_random = x ^ (x << 5);
  endfunction

  wire [EVENT_BITS:0] word = events[accepted[$clog2(MOST_EVENTS)-1:0]];
  wire bad = word[EVENT_BITS];
  wire [1:0] kind = word[1:0];
  wire [47:0] worked = work_until > ready_at ? work_until : ready_at;
  reg due;
  always @* begin
    if (!word[FIRST_BIT]) due = now >= free_at;
    else
      case (kind)
        TOKEN: due = accepted == 0 || now + 1 >= free_at + {16'd0, token_cycles};
        GATE: due = now + 1 >= free_at + {16'd0, gate_cycles};
        default: due = gates == 0 && now >= free_at && now > ready_at && now >= worked + {16'd0, layer_cycles};
      endcase
  end

  wire event_moves = event_share[8] || event_random[7:0] < event_share[7:0];
  wire is_worked_on = notice_kind == HERE || (notice_kind == ARRIVED && notice_wanted);
  assign event_valid = go && accepted < count && (holding || (due && event_moves));
  assign event_payload = word[EVENT_BITS-1:0];
  assign notice_ready = notice_share[8] || notice_random[7:0] < notice_share[7:0];
  assign finished = go && accepted == count;

  always @(posedge clk) begin
    went <= go && !rst;
    if (went && !go) $readmemh(path, events);
    now <= now + 1;
    event_random <= next_random(event_random);
    notice_random <= next_random(notice_random);
    holding <= event_valid && !event_ready;
    if (event_valid && event_ready) begin
      accepted <= accepted + 1;
      free_at <= now + 1;
    end
    gates <= gates + {31'd0, event_valid && event_ready && !bad && kind == GATE}
        - {31'd0, notice_valid && notice_ready && notice_kind == READY};
    if (notice_valid && notice_ready) begin
      if (notice_kind == READY) ready_at <= now;
      if (is_worked_on) work_until <= (work_until > now ? work_until : now) + {16'd0, expert_cycles};
    end
    if (rst || !go) begin
      now <= 0;
      accepted <= 0;
      free_at <= 0;
      ready_at <= 0;
      work_until <= 0;
      gates <= 0;
      holding <= 0;
      event_random <= (seed ^ 32'h9e3779b9) | 1;
      notice_random <= (seed ^ 32'h7f4a7c15) | 1;
    end
  end
endmodule
