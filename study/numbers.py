"""Write numbers for tables."""


def percent(value: float | None, digits: int = 1) -> str:
    """A share in per cent; an en dash for ``None``."""
    return "–" if value is None else f"{100 * value:.{digits}f}\u202f%"


def fixed(value: float | None, digits: int = 3) -> str:
    """A number with ``digits`` decimals; an en dash for ``None``."""
    return "–" if value is None else f"{value:.{digits}f}"


def count(value: int) -> str:
    """A whole number with thin spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f")


def counted(number: int, noun: str) -> str:
    """``1 sequence``, ``2 sequences``; thin spaces between thousands."""
    return f"{count(number)} {noun}" + ("" if number == 1 else "s")


def tokens_of(tokens: int, sequences: int) -> str:
    """``2 500 tokens of 12 sequences``."""
    return f"{counted(tokens, 'token')} of {counted(sequences, 'sequence')}"


def billions(value: int) -> str:
    """``20.9 billion``, ``1 026 billion``: at least three digits."""
    number = value / 1e9
    return f"{count(round(number)) if number >= 1000 else f'{number:.3g}'} billion"


def layers_text(number: int) -> str:
    """``one layer``, ``2 layers``."""
    return "one layer" if number == 1 else f"{number} layers"


def verdict(mismatches: int) -> str:
    """``equal``, or the number of differences."""
    return "equal" if mismatches == 0 else f"{count(mismatches)} DIFFERENT"


def seconds(value_s: float) -> str:
    """A duration in a suitable unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value_s >= scale:
            return f"{value_s / scale:.3g} {unit}"
    return f"{value_s / 1e-9:.3g} ns"


def size(value_bytes: float) -> str:
    """Bytes with a decimal unit (1 GB = 10⁹ bytes)."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value_bytes >= scale:
            return f"{value_bytes / scale:.3g} {unit}"
    return f"{value_bytes:.0f} B"
