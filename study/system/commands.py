"""The commands that remake the figures of the whole system."""

from collections.abc import Sequence

from perfmodel.in_memory_config import InMemory
from study.stages import StudyContext
from study.subjects.learned import PREDICTOR_FILE as NEXT_LAYER_FILE
from study.subjects.next_use import PREDICTOR_FILE as NEXT_USE_FILE
from study.system.machine import host_settings, shares_of
from study.system.parts import TUNING_TOKENS


def remaking(context: StudyContext) -> str:
    """One command a line: of the points by share held, of the map by link, and of the map by host memory."""
    settings = context.config.system
    shares, host = sorted(settings.capacity_fractions), host_settings(context)

    def line(
        shares: Sequence[float],
        tokens: int | None,
        tuning_tokens: int,
        *,
        links: Sequence[float] = (),
        hosts: Sequence[float] = (),
    ) -> str:
        return "".join(
            (
                _common(context),
                _options("host-gb-per-s", hosts or host.get("host_gb_per_s")),
                _options("host-tflops", host.get("host_tflops")),
                _options("capacity-fraction", shares),
                _options("link-gb-per-s", links),
                _options("tokens", tokens),
                _options("tuning-tokens", None if tuning_tokens == TUNING_TOKENS else tuning_tokens),
            )
        )

    few = (settings.map_tokens, settings.map_tuning_tokens)
    return "\n".join(
        (
            line(shares_of(context), settings.tokens, settings.tuning_tokens),
            line(shares, *few, links=sorted(settings.link_gb_per_s)),
            line(shares, *few, hosts=sorted(settings.map_host_gb_per_s)),
        )
    )


def in_memory_remaking(context: StudyContext, batches: Sequence[int]) -> str:
    """One command a line: of one expert by tokens, and of the systems at each batch."""
    settings, host = context.config.system, host_settings(context)
    memory = settings.in_memory
    default = InMemory()
    named = {
        "pim-dram": "dram", "pim-stacks": "stacks", "device-link-gb-per-s": "device_link_gb_per_s",
        "pim-stack-gb": "stack_gb", "pim-pseudo-channels": "pseudo_channels_per_expert", "pim-format": "weight_format",
        "pim-tokens-per-read": "tokens_per_read", "pim-latency-us": "latency_us", "pim-partial-sums": "partial_sums",
    }  # fmt: skip
    options = f" --pim {memory.where}" + "".join(
        _options(option, getattr(memory, field))
        for option, field in named.items()
        if getattr(memory, field) != getattr(default, field)
    )
    options += "" if memory.refresh else " --pim-refresh off"
    of_host = _options("host-gb-per-s", host.get("host_gb_per_s")) + _options("host-tflops", host.get("host_tflops"))
    expert = f"forestage system expert --model {settings.sizes_of} --machine {settings.machine}{of_host}{options}"
    tuning_tokens = settings.map_tuning_tokens
    line = (
        _common(context)
        + of_host
        + options
        + _options("capacity-fraction", (0.0, settings.capacity_fraction))
        + _options("tokens", settings.map_tokens)
        + _options("tuning-tokens", None if tuning_tokens == TUNING_TOKENS else tuning_tokens)
    )
    return "\n".join((expert, *(line + ("" if batch == 1 else f" --batch {batch}") for batch in batches)))


def _common(context: StudyContext) -> str:
    settings = context.config.system
    command = f"forestage system compare --trace {context.trace_name}"
    if "next_use" not in context.left_out:
        command += f" --next-use {NEXT_USE_FILE}"
    if "learned" not in context.left_out:
        command += f" --predictor {NEXT_LAYER_FILE} --distance {context.config.lookahead}"
    return f"{command} --machine {settings.machine}" + _options("sizes-of", settings.sizes_of)


def _options(name: str, values: Sequence[float] | float | str | None) -> str:
    """An option for each of ``values``."""
    if values is None:
        return ""
    several = [values] if isinstance(values, str | float | int) else values
    return "".join(f" --{name} {value if isinstance(value, str) else _exactly(value)}" for value in several)


def _exactly(value: float) -> str:
    """``value`` in as few digits as give it back."""
    return str(int(value)) if value == int(value) else repr(value)
