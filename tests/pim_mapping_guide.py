"""The tables of docs/pim-mapping.md by the commands' own functions; ``python -m tests.pim_mapping_guide`` writes them.

They depend on the unit's clocks (`pim_model.unit.parameters`), so that a change there changes them.
"""

from pathlib import Path

from pim_model.unit.program import WeightFormat
from study.subjects.memory_expert import expert_in_memory
from study.subjects.memory_shapes import shapes_in_memory

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "pim-mapping.md"

MODELS = ("gpt-oss-20b", "Qwen3-30B-A3B", "DeepSeek-V2-Lite")


def shape_rows(device: str) -> list[str]:
    """Rows of the first table: what products reach, the range over matrices."""
    cases: dict[tuple[str, str, int], list] = {}
    for row in shapes_in_memory([device]):
        cases.setdefault((row["kernel"], row["format"], row["tokens"]), []).append(row)
    written = []
    for (kernel, weight_format, tokens), rows in cases.items():
        bounds = [rows[0]["bound_fraction"], rows[0]["refreshed_bound_fraction"]]
        free, refreshed = ("–", "–") if kernel == "samsung" else (f"{100 * bound:.1f}" for bound in bounds)
        cells = [
            device, kernel, weight_format, str(tokens), _span([row["fraction_of_limit"] for row in rows]), free,
            _span([row["refreshed_mean_fraction"] for row in rows]), refreshed,
        ]  # fmt: skip
        written.append(f"| {' | '.join(cells)} |")
    return written


def expert_rows(model: str, device: str) -> list[str]:
    """Rows of the second table: one expert, one token, three ways."""
    written = []
    for weight_format in WeightFormat:
        result = expert_in_memory(model, device, weight_format)
        memory, pins = result["in_memory"], result["over_pins"]
        hosts = [1e6 * host["time_s"] for host in result["host"]]
        cells = [
            model, device, weight_format.name.lower(), f"{1e6 * memory['time_s']:.1f} µs",
            f"{1e6 * memory['bound']['time_s']:.1f} µs", f"{1e6 * pins['time_s']:.1f} µs",
            f"{1e3 * memory['energy_j']:.3f} / {1e3 * pins['energy_j']:.3f} mJ",
            f"{max(hosts):.0f} … {min(hosts):.0f} µs", f"{result['slower_than_pins_from_tokens']} tokens",
        ]  # fmt: skip
        written.append(f"| {' | '.join(cells)} |")
    return written


def _span(values: list[float]) -> str:
    low, high = f"{100 * min(values):.1f}", f"{100 * max(values):.1f}"
    return low if low == high else f"{low}–{high}"


def _key(row: str) -> list[str]:
    """What a row is about: its first cells."""
    cells = [cell.strip() for cell in row.strip("|\n ").split("|")]
    return [str(len(cells)), *cells[: 3 if len(cells) == 9 else 4]]


def main() -> None:
    """Put the tables' rows in the place of those that are about the same."""
    rows = [row for device in ("HBM2-PIM", "HBM3", "HBM3E", "HBM4") for row in shape_rows(device)]
    rows += [row for model in MODELS for device in ("HBM2-PIM", "HBM3") for row in expert_rows(model, device)]
    known = {tuple(_key(row)): row for row in rows}
    lines = GUIDE.read_text().splitlines()
    GUIDE.write_text("\n".join(known.get(tuple(_key(line)), line) for line in lines) + "\n")


if __name__ == "__main__":
    main()
