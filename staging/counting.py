"""What a hit rate counts, and how prompts run: one rule, which every command follows and prints in the same words.

Decode tokens are counted where a trace has any, and its prompts fill the cache uncounted, each as one pass. A trace of
prompts alone is counted token by token, as if it had been decoded: in passes, each of which needs an expert once, it
would say nothing of recency (a single prompt hits nothing whatever is held). A batch is counted by its steps.
"""

from dataclasses import dataclass
from typing import Literal

from traces import DECODE, RoutingTrace

Count = Literal["decode", "all"]
Prefill = Literal["pass", "token"]


@dataclass(frozen=True)
class Counting:
    """What is counted.

    Attributes:
        count: ``decode`` events alone, or ``all``.
        prefill: a prompt is one ``pass`` (see ``staging.events``), or runs ``token`` by token as if decoded.
        sentence: the same for a reader.
    """

    count: Count
    prefill: Prefill
    sentence: str


def counting_of(trace: RoutingTrace, count: Count | None = None, prefill: Prefill | None = None) -> Counting:
    """The rule for ``trace``, which is read in chunks; ``count`` and ``prefill`` are the user's words, where given."""
    decode, prompts = _phases(trace)
    count = count or ("decode" if decode else "all")
    prefill = prefill or ("pass" if decode else "token")
    return Counting(count, prefill, _sentence(count, prefill, decode, prompts))


def counting_of_batch(trace: RoutingTrace, count: Count | None = None) -> Counting:
    """The rule for a batch of ``trace``, whose schedule says how prompts run."""
    decode, prompts = _phases(trace)
    count = count or ("decode" if decode else "all")
    steps = "steps that hold a decode token" if count == "decode" and prompts else "all steps"
    sentence = f"of the batch, {steps}: what all tokens of a step need in a layer is looked up together"
    return Counting(count, "pass", sentence)


def _phases(trace: RoutingTrace) -> tuple[bool, bool]:
    """Whether there are decode tokens, and prompt tokens."""
    decode = prompts = False
    for part in trace.chunks():
        decoded = part.phase == DECODE
        decode, prompts = decode or bool(decoded.any()), prompts or not bool(decoded.all())
        if decode and prompts:
            break
    return decode, prompts


def _sentence(count: Count, prefill: Prefill, decode: bool, prompts: bool) -> str:
    """What is counted, to follow "counted:"."""
    if not prompts:
        return "decode tokens (there are no others)"
    how = "each as one pass, layer by layer" if prefill == "pass" else "token by token as if decoded"
    if count == "decode":
        return f"decode tokens; prompts fill the cache uncounted, {how}"
    if not decode:
        return f"prompt tokens, {how} (there are no decode tokens)"
    return f"decode tokens and prompts, {how}"
