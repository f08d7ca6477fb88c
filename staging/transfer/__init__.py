"""Moving experts: how a transfer becomes bursts of a bus, and how long it takes; the specification of the hardware."""
