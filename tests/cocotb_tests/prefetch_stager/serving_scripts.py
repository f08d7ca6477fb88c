"""Scripts of a stager that serves decoding: gates, predictions and values layer by layer, the link in between."""

import numpy as np

from cocotb_tests.prefetch_stager.script import StagerScript
from rtl.prefetch.stager.layouts import StagerShape
from staging.stager.answers import Kind
from staging.stager.directory import NONE


class _Serving:
    """The running sequences, and the script so far."""

    def __init__(self, script, seed):
        self.script, self.limits = script, script.used
        self.random = np.random.default_rng(seed)
        shape = (self.limits.sequence_slots, self.limits.layers, self.limits.experts)
        self.scores = self.random.normal(size=shape)

    def chosen(self, slot, layer, count, noise=0.0):
        """The experts of most score, which drift from token to token."""
        scores = self.scores[slot, layer]
        return np.argsort(-scores - noise * self.random.normal(size=len(scores)))[:count].tolist()

    def drift(self):
        self.scores = 0.8 * self.scores + 0.6 * self.random.normal(size=self.scores.shape)

    def tell(self, command, *arguments):
        return self.script.tell(command, arguments)

    def use_link(self):
        """One thing happens on the link."""
        if self.script.twin.moving == [NONE]:
            return self.tell("grant")
        return self.tell(str(self.random.choice(["preempt", "arrive", "fail"], p=[0.3, 0.65, 0.05])), 0)

    def layer(self, layer, deadline):
        """The slots' gates of a layer, and what follows until they have run."""
        limits, random, twin = self.limits, self.random, self.script.twin
        held = []
        for slot in range(limits.sequence_slots):
            experts = self.chosen(slot, layer, limits.event_experts)
            if random.random() < 0.1:
                step = self.tell("demand_residents", layer, experts)
                experts = [a.key % limits.experts for a in step.actions if a.kind is Kind.HIT]
            else:
                self.tell("demand", layer, experts)
            held.append(experts)
        self.tell("expire", deadline)
        for slot in range(limits.sequence_slots):
            ahead = self.chosen(slot, (layer + 1) % limits.layers, self.script.shape.named_experts, noise=0.5)
            chances = np.sort(random.integers(0, 1 << 16, len(ahead)))[::-1].tolist()
            late = random.random() < 0.1
            self.tell("prefetch", (layer + 1) % limits.layers, ahead, chances, deadline + 1 - late)
        values = np.clip(2000 * self.scores[:, layer].max(axis=0), -30000, 30000).astype(int).tolist()
        self.tell("set_values", layer, values)
        while twin.queue.holds_demand or any(key in twin.queue.demanded for key in twin.moving):
            self.use_link()
        for _ in range(int(random.integers(6))):
            self.use_link()
        for experts in held:
            self.tell("release", layer, experts)


def serving_script(limits, settings, commands, seed, **used):
    """At least so many commands."""
    script = StagerScript(StagerShape(limits=limits), settings, **used)
    serving = _Serving(script, seed)
    for layer in range(script.used.layers):
        script.tell("preload", (layer, [layer % script.used.experts]))
    script.tell("fix", (0, [0]))
    deadline = 0
    while len(script.payloads) < commands:
        for layer in range(script.used.layers):
            serving.layer(layer, deadline)
            deadline += 1
        serving.drift()
    return script
