// A memory on an AXI4 bus, for simulation: it answers in order, logs every burst, and misbehaves where it is told to.
//
// Plusargs, NAME being the parameter (`+far_latency=500`):
//   +seed=N               of all random waits
//   +NAME_latency=N       cycles from the handshake on AR to the first beat on R (1 or more; 1)
//   +NAME_interval=N      cycles from a beat on R to the next (1 or more; 1): the bandwidth
//   +NAME_answer=N        cycles from the last handshake on AW and W to B (1 or more; 1)
//   +NAME_write_interval=N  cycles from a beat on W to the next (1 or more; 1)
//   +NAME_waits=N         chance, in 256ths, that a channel waits in a cycle, each by itself (0)
//   +NAME_fill            words that were never written read as `pattern`; otherwise as 0
//
// Each time `keep` falls, a run begins anew in the same simulation: the files are read again, nothing else is held any
// more, and bursts are counted from 0. Nothing may be under way then.
//
// Files in the simulator's folder:
//   NAME.load      read at the start, if there is one: records of an address, 64 bits, and a word of the
//                  bus's width, both from the highest byte on
//   NAME.faults    read at the start, if there is one: lines "kind burst beat value", decimal, bursts counted from 0:
//                  0: beat of a read burst has response `value`; 1: rlast is inverted at that beat; 2: a read burst has
//                  `beat` beats (1 or more), whatever was asked for, with rlast on the last; 3: a write burst has response `value`
//   NAME.log       written: "r number address beats asked first last response" when a read burst is over, and
//                  "w number address beats asked first last answered response"; the address is hexadecimal, `asked`,
//                  `first`, `last` and `answered` are cycles of handshakes, counted from 1 in the first after reset
//   NAME.memory    written when `keep` rises: lines "address mask word" of all words that were written in this run,
//                  hexadecimal
module axi4_ram #(
  parameter string NAME = "ram",
  parameter int ADDRESS_BITS = 48,
  parameter int DATA_BITS = 512,
  parameter int ID_BITS = 1
) (
  input  logic                    clk,
  input  logic                    rst,
  input  logic                    keep,
  input  logic [ID_BITS-1:0]      arid,
  input  logic [ADDRESS_BITS-1:0] araddr,
  input  logic [7:0]              arlen,
  input  logic                    arvalid,
  output logic                    arready,
  output logic [ID_BITS-1:0]      rid,
  output logic [DATA_BITS-1:0]    rdata,
  output logic [1:0]              rresp,
  output logic                    rlast,
  output logic                    rvalid,
  input  logic                    rready,
  input  logic [ID_BITS-1:0]      awid,
  input  logic [ADDRESS_BITS-1:0] awaddr,
  input  logic [7:0]              awlen,
  input  logic                    awvalid,
  output logic                    awready,
  input  logic [DATA_BITS-1:0]    wdata,
  input  logic [DATA_BITS/8-1:0]  wstrb,
  input  logic                    wlast,
  input  logic                    wvalid,
  output logic                    wready,
  output logic [ID_BITS-1:0]      bid,
  output logic [1:0]              bresp,
  output logic                    bvalid,
  input  logic                    bready
);
  localparam int BYTES = DATA_BITS / 8;

  typedef struct packed {
    logic [ID_BITS-1:0] id;
    logic [ADDRESS_BITS-1:0] address;
    logic [8:0] beats;
    longint unsigned asked;
  } burst_t;
  typedef struct packed {
    logic [DATA_BITS-1:0] data;
    logic [DATA_BITS/8-1:0] strobe;
    longint unsigned at;
  } beat_t;
  typedef struct packed {
    burst_t burst;
    longint unsigned number, first, last, due;
  } answer_t;

  logic [DATA_BITS-1:0] words [longint unsigned];
  logic [DATA_BITS/8-1:0] masks [longint unsigned];
  int bad_beat [longint unsigned];
  int bad_response [longint unsigned];
  int bad_last [longint unsigned];
  int cut_after [longint unsigned];
  int bad_write [longint unsigned];

  burst_t reads [$], writes [$];
  beat_t beats [$];
  answer_t answers [$];

  longint unsigned now, read_number, write_number, read_first, read_free, write_first, write_free, draw;
  int unsigned read_beat, write_beat, latency, interval, answer, write_interval, waits, seed;
  logic [1:0] worst;
  logic fill, kept, offers;
  int log, file, kind, beat_of_fault, value;
  longint unsigned at;
  logic [DATA_BITS-1:0] word;
  longint unsigned address_read [1];  // $fread reads arrays
  logic [DATA_BITS-1:0] word_read [1];
  burst_t burst;
  beat_t beat;
  answer_t done;

  // 64 bits for every 8 bytes of the address: what an untouched memory holds.
  function automatic longint unsigned mixed(input longint unsigned index);
    longint unsigned z;
    z = index * 64'h9E3779B97F4A7C15 + 64'h2545F4914F6CDD1D;
    z = (z ^ (z >> 32)) * 64'hD6E8FEB86659FD93;
    return z ^ (z >> 32);
  endfunction

  function automatic logic [DATA_BITS-1:0] held(input longint unsigned address);
    logic [DATA_BITS-1:0] found;
    longint unsigned lane;
    if (words.exists(address)) return words[address];
    found = '0;
    if (fill)
      for (int n = 0; n < BYTES; n++) begin
        lane = mixed((address + n) >> 3);
        found[8*n +: 8] = lane[8 * ((address + n) % 8) +: 8];
      end
    return found;
  endfunction

  function automatic int unsigned read_beats();
    return cut_after.exists(read_number) ? cut_after[read_number] : 32'(reads[0].beats);
  endfunction

  function automatic logic go(input int unsigned channel);
    return draw[8*channel +: 8] >= waits[7:0] || waits == 0;
  endfunction

  task automatic read_files();
    words.delete(); masks.delete();
    bad_beat.delete(); bad_response.delete(); bad_last.delete(); cut_after.delete(); bad_write.delete();
    file = $fopen({NAME, ".load"}, "rb");
    if (file != 0) begin
      while ($fread(address_read, file) == 8 && $fread(word_read, file) == BYTES) words[address_read[0]] = word_read[0];
      $fclose(file);
    end
    file = $fopen({NAME, ".faults"}, "r");
    if (file != 0) begin
      while ($fscanf(file, "%d %d %d %d", kind, at, beat_of_fault, value) == 4)
        case (kind)
          0: begin bad_beat[at] = beat_of_fault; bad_response[at] = value; end
          1: bad_last[at] = beat_of_fault;
          2: cut_after[at] = beat_of_fault;
          default: bad_write[at] = value;
        endcase
      $fclose(file);
    end
  endtask

  initial begin
    if (!$value$plusargs("seed=%d", seed)) seed = 0;
    if (!$value$plusargs({NAME, "_latency=%d"}, latency)) latency = 1;
    if (!$value$plusargs({NAME, "_interval=%d"}, interval)) interval = 1;
    if (!$value$plusargs({NAME, "_answer=%d"}, answer)) answer = 1;
    if (!$value$plusargs({NAME, "_write_interval=%d"}, write_interval)) write_interval = 1;
    if (!$value$plusargs({NAME, "_waits=%d"}, waits)) waits = 0;
    fill = $test$plusargs({NAME, "_fill"}) != 0;
    read_files();
    log = $fopen({NAME, ".log"}, "w");
    draw = mixed(longint'(seed) * 1024 + NAME.len() * 256 + longint'(NAME.getc(0)));
  end

  always @(posedge clk) begin
    kept <= keep;
    if (rst) begin
      {arready, rvalid, awready, wready, bvalid} <= '0;
      {now, read_number, write_number, read_free, write_free} <= '0;
      read_beat <= 0; write_beat <= 0;
      reads.delete(); writes.delete(); beats.delete(); answers.delete();
    end else begin
      now = now + 1;
      draw = draw ^ (draw << 13); draw = draw ^ (draw >> 7); draw = draw ^ (draw << 17);

      // R, then AR, so that a burst that is asked for now may be answered in the next cycle.
      if (rvalid && rready) begin
        if (read_beat == 0) begin read_first = now; worst = '0; end
        if (rresp > worst) worst = rresp;
        read_beat = read_beat + 1;
        if (read_beat == read_beats()) begin
          $fwrite(log, "r %0d %h %0d %0d %0d %0d %0d\n", read_number, reads[0].address, reads[0].beats, reads[0].asked,
                  read_first, now, worst);
          void'(reads.pop_front());
          read_number = read_number + 1;
          read_beat = 0;
        end
      end
      if (arvalid && arready) reads.push_back('{id: arid, address: araddr, beats: 9'(arlen) + 1, asked: now});
      arready <= go(0);
      if (!rvalid || rready) begin
        offers = reads.size() != 0 && go(1) && now + 1 >= read_free;
        if (offers) offers = now + 1 >= reads[0].asked + longint'(latency);
        rvalid <= offers;
        if (offers) begin
          rid <= reads[0].id;
          rdata <= held(longint'(reads[0].address) + longint'(read_beat) * BYTES);
          rlast <= (read_beat + 1 == read_beats())
                   ^ (bad_last.exists(read_number) && bad_last[read_number] == read_beat);
          rresp <= bad_beat.exists(read_number) && bad_beat[read_number] == read_beat
                   ? bad_response[read_number][1:0] : 2'b00;
          read_free = now + 1 + longint'(interval);
        end
      end

      // AW and W, then B.
      if (bvalid && bready) begin
        done = answers.pop_front();
        $fwrite(log, "w %0d %h %0d %0d %0d %0d %0d %0d\n", done.number, done.burst.address, done.burst.beats,
                done.burst.asked, done.first, done.last, now, bresp);
      end
      if (awvalid && awready) writes.push_back('{id: awid, address: awaddr, beats: 9'(awlen) + 1, asked: now});
      if (wvalid && wready) begin
        beats.push_back('{data: wdata, strobe: wstrb, at: now});
        write_free = now + longint'(write_interval);
      end
      while (writes.size() != 0 && beats.size() != 0) begin
        beat = beats.pop_front();
        burst = writes[0];
        if (write_beat == 0) write_first = beat.at;
        at = longint'(burst.address) + longint'(write_beat) * BYTES;
        word = held(at);
        for (int n = 0; n < BYTES; n++) if (beat.strobe[n]) word[8*n +: 8] = beat.data[8*n +: 8];
        words[at] = word;
        masks[at] = masks.exists(at) ? masks[at] | beat.strobe : beat.strobe;
        write_beat = write_beat + 1;
        if (write_beat == 32'(burst.beats)) begin
          answers.push_back('{burst: burst, number: write_number, first: write_first, last: beat.at,
                              due: now + longint'(answer)});
          void'(writes.pop_front());
          write_number = write_number + 1;
          write_beat = 0;
        end
      end
      awready <= go(2);
      wready <= go(3) && now + 1 >= write_free;
      if (!bvalid || bready) begin
        offers = answers.size() != 0 && go(4);
        if (offers) offers = now + 1 >= answers[0].due;
        bvalid <= offers;
        if (offers) begin
          bid <= answers[0].burst.id;
          bresp <= bad_write.exists(answers[0].number) ? bad_write[answers[0].number][1:0] : 2'b00;
        end
      end
    end
    if (keep && !kept) begin
      $fflush(log);
      file = $fopen({NAME, ".memory"}, "w");
      foreach (masks[address]) $fwrite(file, "%h %h %h\n", address, masks[address], words[address]);
      $fclose(file);
    end
    if (kept && !keep) begin
      read_files();
      {read_number, write_number} = '0;
    end
  end
endmodule
