"""Suggest what to do with a source of unknown format, from its first bytes."""

from pathlib import Path

from traces.importers.assembly.table_columns import shown
from traces.importers.assembly.table_source import columns_of, table_files
from traces.importers.assembly.text_file import starting_bytes

LOOKED_AT_BYTES = 1 << 12

LIKELY = {
    "layer": ("layer", "layer_id", "layer_idx", "layer id", "moe_layer"),
    "token": ("token", "token_idx", "token_index", "token_pos", "tok", "token_number"),
    "position": ("position", "pos", "token_position"),
    "ids": ("ids", "expert_ids", "expertids", "experts", "topk_ids", "top_k_ids", "selected_experts", "topk_indices"),
    "weights": ("weights", "expertweights", "expert_weights", "topk_weights", "gate_weights"),
    "expert": ("expert", "expert_id", "expert_idx"),
    "count": ("count", "counts", "load"),
    "sequence": ("sequence", "request_id", "req_id", "seq_id", "prompt_id", "sample_id"),
    "phase": ("phase",),
}
"""Column name in any case → its probable role, as a suggestion to the user."""

ARRAYS = (
    "arrays go into NAME.npz: expert_ids [tokens, layers, k] and seq_offsets, with NAME.sequences.jsonl beside it "
    "(docs/importing.md)"
)


def hint(source: Path, start: bytes) -> str:
    """How to import such a source nevertheless, as the end of an error; empty if nothing is known.

    Args:
        source: a file or folder.
        start: the first bytes of a file, unzipped.
    """
    if source.is_dir():
        files, _ = table_files(source)
        if not files:
            return ""
        columns = columns_of(files[0], starting_bytes(files[0], LOOKED_AT_BYTES))
        named = f" {_seen(columns)}" if columns else ""
        return (
            f"; a folder of tables{f' such as {files[0].name}' if named else ''}{named} is imported with --format "
            f"table --files sequence, layer or rank and {_suggestion(columns or [])}"
        )
    columns = columns_of(source, start)
    if columns:
        return f"; it looks like a table {_seen(columns)}: import it with --format table and {_suggestion(columns)}"
    if start.startswith(b"\x93NUMPY"):
        return f"; {ARRAYS}"
    try:
        start[:LOOKED_AT_BYTES].decode("utf-8", errors="strict" if len(start) < LOOKED_AT_BYTES else "ignore")
    except UnicodeDecodeError:
        return ""
    if b"\0" in start:
        return ""
    return f"; a table of any columns is imported with --format table and {_suggestion([])}; {ARRAYS}"


def _seen(columns: list[str]) -> str:
    """The columns of a file."""
    return f"with the columns {shown(columns)}"


def _suggestion(columns: list[str]) -> str:
    """Options that name the columns, with the likely ones filled in."""
    found: dict[str, str] = {}
    for role, names in LIKELY.items():
        column = next((name for name in columns if name.lower() in names), None)
        if column is not None:
            found[role] = column
    numbered = [name for name in columns if name.lower().rstrip("0123456789") in ("expert_", "expert", "topk_", "top")]
    if "ids" not in found and "expert" not in found and len(numbered) > 1:
        found["ids"] = f"{numbered[0]}..{numbered[-1]}"
    if "ids" not in found and "expert" not in found:
        found["ids"] = "NAME"
    if "count" in found and "expert" in found:
        found = {role: found[role] for role in ("layer", "expert", "count") if role in found}
    else:
        found.pop("count", None)
    if "ids" in found:
        found.pop("expert", None)
    if "position" in found:
        found.pop("token", None)
    found.setdefault("layer", "NAME")
    return " ".join(f"--column {role}={_quoted(name)}" for role, name in found.items())


def _quoted(name: str) -> str:
    """A column's name, quoted for a shell."""
    return f"'{name}'" if not name.replace("_", "").replace(".", "").isalnum() else name
