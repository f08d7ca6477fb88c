"""The decode loop: one sequence after the other, batch 1, token by token through the event loop."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from catalog.progress import Progress
from perfmodel.costs import Kernel, SimulatedLayers
from perfmodel.policies import Policy
from perfmodel.policies.base import System
from perfmodel.steps import DecodeStep, PromptPass, steps_of
from perfmodel.tasks import Task
from perfmodel.transfers import Fetch
from traces import RoutingTrace

GPU = ("gpu_compute", "hbm")
"""A kernel holds both for its whole duration; the accounts record how long each really works."""

PROGRESS_TOKENS = 64


@dataclass
class Parts:
    """What the time of the decode tokens was spent on, ps; the parts sum to it exactly.

    Attributes:
        compute: kernels, for as long as their operations take.
        hbm: kernels, for as long as their bytes from HBM take beyond that.
        demand_wait: the device idles until an expert arrives that no prediction had asked for.
        late_prefetch_wait: the device idles until a prefetch arrives, ``engine_latency`` subtracted.
        engine_latency: the part of the waits for late prefetches during which the link had stood idle because the
            prefetch engine was still computing the prediction (each idle interval is charged to a wait once).
    """

    compute: int = 0
    hbm: int = 0
    demand_wait: int = 0
    late_prefetch_wait: int = 0
    engine_latency: int = 0

    @property
    def total(self) -> int:
        """The tokens' time."""
        return self.compute + self.hbm + self.demand_wait + self.late_prefetch_wait + self.engine_latency


@dataclass
class DecodeLoop:
    """Runs a trace through a policy.

    Attributes:
        parts: see `Parts`.
        token_ps: duration of each decode token, ps.
        prompt_tokens: tokens that warmed the cache, not timed.
    """

    system: System
    policy: Policy
    layers: SimulatedLayers
    parts: Parts = field(default_factory=Parts)
    token_ps: list[int] = field(default_factory=list)
    prompt_tokens: int = 0

    def __post_init__(self) -> None:
        costs = self.system.costs
        self._gate = costs.gate()
        self._expert = costs.expert()
        self._shared = costs.shared_experts()

    def run(self, trace: RoutingTrace, progress: Progress | None = None) -> None:
        """Decode every sequence of ``trace``; ``progress(tokens done, tokens)`` is called now and then."""
        reported = 0
        for step in steps_of(trace):
            if isinstance(step, DecodeStep):
                self._decode(step)
            elif isinstance(step, PromptPass):
                self.prompt_tokens += step.tokens
                for layer, experts in enumerate(step.chosen):
                    if experts:
                        self.policy.warm(layer, experts)
            else:
                self.policy.begin_sequence()
            done = self.prompt_tokens + len(self.token_ps)
            if progress is not None and (done - reported >= PROGRESS_TOKENS or done == trace.tokens > reported):
                progress(done, trace.tokens)
                reported = done
        self.policy.finish()
        self.system.event_loop.run()

    def _decode(self, step: DecodeStep) -> None:
        """One decode step."""
        event_loop, policy, costs = self.system.event_loop, self.policy, self.system.costs
        token, context_tokens = step.token, step.context_tokens
        begin_ps, before_ps = event_loop.now_ps, self.parts.total
        attentions = costs.attentions(context_tokens, self.layers.routed)
        policy.begin_token(token)
        for dense in self.layers.dense:
            event_loop.run_until(self._launch("dense layer", costs.dense_layer(context_tokens, dense)))
        for layer, (experts, attention) in enumerate(zip(step.ids, attentions, strict=True)):
            event_loop.run_until(self._launch("gate", self._gate, after=(self._launch("attention", attention),)))
            fetches = policy.gate(token, layer, [(layer, expert) for expert in experts])
            if self._shared is not None:
                event_loop.run_until(self._launch("shared experts", self._shared))
            self._run_experts(fetches)
            policy.end_layer(token, layer)
        elapsed_ps = event_loop.now_ps - begin_ps
        assert elapsed_ps == self.parts.total - before_ps, "the parts of a token's time do not sum to it"
        self.token_ps.append(elapsed_ps)

    def _run_experts(self, fetches: Sequence[Fetch | None]) -> None:
        """Run each of a layer's experts when it has arrived, and charge all idle time to the fetch waited for."""
        event_loop = self.system.event_loop
        free_ps = event_loop.now_ps
        kernels = [
            (self._launch("expert", self._expert, after=() if fetch is None else (fetch.task,), order=rank), fetch)
            for rank, fetch in enumerate(fetches)
        ]
        for kernel, _ in kernels:
            event_loop.run_until(kernel)
        for kernel, fetch in sorted(kernels, key=lambda pair: pair[0].start_ps):
            if kernel.start_ps > free_ps:
                assert fetch is not None, "the device was idle with work at hand"
                self._charge_wait(fetch, kernel.start_ps - free_ps)
            free_ps = kernel.end_ps

    def _charge_wait(self, fetch: Fetch, wait_ps: int) -> None:
        """Charge the ``wait_ps`` that the device was idle until ``fetch`` arrived to the part it belongs to."""
        if fetch.prediction is None:
            self.parts.demand_wait += wait_ps
            return
        engine_ps = min(wait_ps, fetch.prediction.link_idle_ps)
        fetch.prediction.link_idle_ps -= engine_ps
        self.parts.engine_latency += engine_ps
        self.parts.late_prefetch_wait += wait_ps - engine_ps

    def _launch(self, kind: str, kernel: Kernel, *, after: tuple[Task, ...] = (), order: int = 0) -> Task:
        """Put a kernel on the device and account its work."""
        duration_ps = kernel.duration_ps
        self.parts.compute += kernel.compute_ps
        self.parts.hbm += duration_ps - kernel.compute_ps
        return self.system.event_loop.submit(
            kind, GPU, duration_ps, busy_ps=(kernel.compute_ps, kernel.hbm_ps), order=order, after=after
        )
