"""The forward passes in a file of transformers' router logits, with the known facts about their tokens.

``formats.hf_router_logits`` describes the layout of such files.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from traces.importers.assembly import torch_file
from traces.importers.assembly.array_file import is_safetensors
from traces.importers.assembly.logit_axes import RawPass, flattened, unstacked
from traces.importers.options import ImportOptions

NAME = "router_logits"
PASSES = "passes"
PAD_TOKEN = "pad_token_id"
TENSOR = re.compile(r"(?:(\d{1,9})\.)?router_logits\.(\d{1,6})")
STACKED = re.compile(r"(?:(\d{1,9})\.)?router_logits")
GRIDS = ("input_ids", "attention_mask")

Array = npt.NDArray[Any]
Tokens = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LogitPass:
    """A forward pass over a batch: row ``b · width + s`` is the s-th token that it processed of the b-th sequence.

    Attributes:
        width: number of tokens of each sequence.
        logits: reads the logits of a layer, ``[batch · width, experts]``.
        tokens: ``[batch, width]`` vocabulary indices, or ``None``.
        kept: bool ``[batch, width]``, false where the token is padding.
    """

    width: int
    logits: Callable[[int], Array]
    tokens: Tokens | None
    kept: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class LogitFile:
    """The passes of one batch, in order.

    Attributes:
        passes: the first holds the prompt, or its beginning.
        batch: number of sequences.
        layers: number of entries in a pass's tuple.
        used: indices of the entries with logits; the others are dense layers.
        experts: number of experts in a layer.
        batch_is_stated: whether a grid of tokens or a mask shows the sequences.
        padding_is_stated: whether a mask marks padding in every pass of the prompt.
        prompt_passes: number of passes for the prompt: the first, and those of several tokens after it.
    """

    passes: tuple[LogitPass, ...]
    batch: int
    layers: int
    used: tuple[int, ...]
    experts: int
    batch_is_stated: bool
    padding_is_stated: bool
    prompt_passes: int

    @property
    def rows(self) -> int:
        """Number of rows in all passes."""
        return sum(self.batch * part.width for part in self.passes)

    def kept_rows(self) -> npt.NDArray[np.int64]:
        """Rows of all passes that are not padding, ascending."""
        return np.flatnonzero(np.concatenate([part.kept.reshape(-1) for part in self.passes]))

    def where(self, row: int) -> str:
        """Description of a row, numbered over all passes, for errors."""
        for number, part in enumerate(self.passes):
            if row < self.batch * part.width:
                sequence, token = divmod(row, part.width)
                of_batch = f"sequence {sequence}, " if self.batch > 1 else ""
                of_pass = f"pass {number}, " if len(self.passes) > 1 else ""
                return f"{of_pass}{of_batch}token {token}"
            row -= self.batch * part.width
        raise IndexError(row)

    @property
    def has_tokens(self) -> bool:
        """Whether the tokens of every pass are known."""
        return all(part.tokens is not None for part in self.passes)


def read_passes(path: Path, options: ImportOptions) -> LogitFile:
    """All passes of a file, with shapes checked to fit each other.

    Args:
        path: the file.
        options: determine the layer axis of a tensor with all layers.

    Raises:
        ForestageError: if the file is damaged or in no known layout.
    """
    with path.open("rb") as file:
        start = file.read(1 << 10)
    if start.startswith((b"PK\x03\x04", b"\x93NUMPY")) and not torch_file.is_torch_file(start):
        raise ForestageError(
            f"{path}: a NumPy file, in which no router logits are read; save them with torch.save as .pt, or as "
            f".safetensors with a tensor {NAME}.0, {NAME}.1, … a layer"
        )
    raw, beside = _safetensors_passes(path, options) if is_safetensors(start) else _torch_passes(path, options)
    return _checked(path, raw, beside)


def _torch_passes(path: Path, options: ImportOptions) -> tuple[list[RawPass], dict[str, Any]]:
    """Passes of a ``.pt``, and the values beside them."""
    value = torch_file.load(path)
    if isinstance(value, dict):
        beside = {name: part for name, part in value.items() if name not in (NAME, PASSES)}
        if (NAME in value) == (PASSES in value):
            raise ForestageError(f"{path}: expected either {NAME} or {PASSES}; found {', '.join(map(str, value))}")
        value = value.get(NAME, value.get(PASSES))
    else:
        beside = {}
    if isinstance(value, np.ndarray):
        value, beside = [{NAME: value, **beside}], {}
    if not isinstance(value, (tuple, list)) or not value:
        raise ForestageError(f"{path}: {NAME}: expected a tuple of a tensor [batch · sequence, experts] a MoE layer")
    if all(isinstance(part, dict) for part in value):
        parts = [(part.get(NAME), part) for part in value]
    elif all(isinstance(part, (tuple, list)) for part in value):
        parts = [(part, {}) for part in value]
    else:
        parts = [(value, beside)]
        beside = {name: part for name, part in beside.items() if name not in GRIDS}
    raw = []
    for number, (layers, grids) in enumerate(parts):
        place = f"{path}: {NAME}" if len(parts) == 1 else f"{path}: {NAME} of pass {number}"
        if isinstance(layers, np.ndarray):
            raw.append(unstacked(layers, _grids_of(grids), options, place))
            continue
        if not isinstance(layers, (tuple, list)) or not layers:
            raise ForestageError(f"{place}: expected a tuple of a tensor [batch · sequence, experts] a MoE layer")
        if not all(part is None or isinstance(part, np.ndarray) for part in layers):
            raise ForestageError(
                f"{place}: expected a tensor [batch · sequence, experts] a MoE layer (None of a dense one)"
            )
        shapes = [None if part is None else part.shape for part in layers]
        raw.append(RawPass(shapes, lambda layer, layers=layers: layers[layer], grids))  # type: ignore[misc]
    return raw, beside


def _safetensors_passes(path: Path, options: ImportOptions) -> tuple[list[RawPass], dict[str, Any]]:
    """Passes of a ``.safetensors``, and the values beside them."""
    from safetensors import SafetensorError, safe_open

    def tensor(name: str) -> Array:
        try:
            with safe_open(path, framework="np") as file:
                if file.get_slice(name).get_dtype() == "BF16":
                    return torch_file.load_safetensors(path, name)
                return np.asarray(file.get_tensor(name))
        except (SafetensorError, OSError, TypeError, ValueError) as error:
            raise ForestageError(f"{path}: {name}: cannot read ({' '.join(str(error).split())})") from error

    try:
        with safe_open(path, framework="np") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ForestageError(f"{path}: damaged or no safetensors file ({' '.join(str(error).split())})") from error
    stacked = {match[1]: name for name in shapes if (match := STACKED.fullmatch(name)) is not None}
    if stacked:
        return _stacked_passes(path, stacked, shapes, tensor, options)
    found: dict[int | None, list[int]] = {}
    for name in shapes:
        match = TENSOR.fullmatch(name)
        if match is not None:
            found.setdefault(None if match[1] is None else int(match[1]), []).append(int(match[2]))
    numbers = sorted(number for number in found if number is not None)
    if not found or (None in found and numbers) or numbers != list(range(len(numbers))):
        raise ForestageError(
            f"{path}: expected tensors {NAME}.0, {NAME}.1, … of one pass, or 0.{NAME}.0, … and 1.{NAME}.0, … of "
            "several, without a gap"
        )
    raw = []
    keys: list[int | None] = [*numbers] if numbers else [None]
    for number in keys:
        prefix = "" if number is None else f"{number}."
        layers = sorted(found[number])
        if layers != list(range(len(layers))):
            raise ForestageError(f"{path}: expected tensors {prefix}{NAME}.0, … without a gap; found {layers}")
        grids = {name: tensor(prefix + name) for name in GRIDS if prefix + name in shapes}
        raw.append(
            RawPass(
                [shapes[f"{prefix}{NAME}.{layer}"] for layer in layers],
                lambda layer, prefix=prefix: tensor(f"{prefix}{NAME}.{layer}"),  # type: ignore[misc]
                grids,
            )
        )
    names = [name for name in (*GRIDS, "sequences", PAD_TOKEN) if numbers and name in shapes]
    return raw, {name: tensor(name) for name in names}


def _stacked_passes(
    path: Path,
    stacked: dict[str | None, str],
    shapes: dict[str, tuple[int, ...]],
    tensor: Callable[[str], Array],
    options: ImportOptions,
) -> tuple[list[RawPass], dict[str, Any]]:
    """Passes of a ``.safetensors`` with one tensor per pass, by the pass's number (``None`` for a single pass)."""
    numbers = sorted(int(number) for number in stacked if number is not None)
    mixed = any(TENSOR.fullmatch(name) for name in shapes)
    if mixed or (None in stacked and numbers) or numbers != list(range(len(numbers))):
        raise ForestageError(
            f"{path}: expected one tensor {NAME} of one pass, or 0.{NAME}, 1.{NAME}, … of several, without a gap, and "
            f"no {NAME}.<layer> beside them"
        )
    raw = []
    for prefix in [f"{number}." for number in numbers] or [""]:
        grids = {name: tensor(prefix + name) for name in GRIDS if prefix + name in shapes}
        raw.append(unstacked(tensor(prefix + NAME), grids, options, f"{path}: {prefix}{NAME}"))
    names = [name for name in (*GRIDS, "sequences", PAD_TOKEN) if numbers and name in shapes]
    return raw, {name: tensor(name) for name in names}


def _grids_of(named: dict[str, Any]) -> dict[str, Any]:
    """The values beside a pass that are grids of its tokens."""
    return {name: named[name] for name in GRIDS if name in named}


def _checked(path: Path, raw: list[RawPass], beside: dict[str, Any]) -> LogitFile:
    """The passes, with shapes checked to fit each other and the grids."""
    own = [{name: _grid(path, part.grids, name, number, len(raw)) for name in GRIDS} for number, part in enumerate(raw)]
    common = {name: _grid(path, beside, name, None, len(raw)) for name in (*GRIDS, "sequences")}
    grids = [grid for part in [*own, common] for grid in part.values() if grid is not None]
    if len({len(grid) for grid in grids}) > 1:
        raise ForestageError(
            f"{path}: attention_mask: its shape differs from that of input_ids, in the number of sequences"
        )
    raw = [flattened(part, grids, f"{path}: {_named(NAME, number, len(raw))}") for number, part in enumerate(raw)]
    used, experts = _layers(path, raw)
    rows = [next(shape for shape in part.shapes if shape is not None)[0] for part in raw]
    batch = len(grids[0]) if grids else 1
    for number, count in enumerate(rows):
        if count % batch:
            raise ForestageError(
                f"{path}: {_named(NAME, number, len(raw))}: {count} rows, no multiple of the {batch} sequences of "
                "input_ids or attention_mask"
            )
    widths = [count // batch for count in rows]
    prompt_passes = _prompt_passes(path, widths, bool(grids))
    tokens = _tokens(path, own, common, widths)
    kept = _kept(path, own, common["attention_mask"], widths, batch, prompt_passes)
    _refuse_holes(path, kept[:prompt_passes], 0)
    _refuse_holes(path, kept[prompt_passes:], sum(widths[:prompt_passes]))  # what follows a prompt's padding is no hole
    _end_at_padding(path, beside, tokens, kept, prompt_passes)
    passes = tuple(
        LogitPass(width, part.logits, token, keep)
        for width, part, token, keep in zip(widths, raw, tokens, kept, strict=True)
    )
    masked = common["attention_mask"] is not None or all(
        part["attention_mask"] is not None for part in own[:prompt_passes]
    )
    return LogitFile(passes, batch, len(raw[0].shapes), used, experts, bool(grids), masked, prompt_passes)


def _layers(path: Path, raw: list[RawPass]) -> tuple[tuple[int, ...], int]:
    """Indices of the entries with logits, and the number of experts; the same in every pass."""
    first = raw[0].shapes
    widths = {shape[1] for shape in first if shape is not None and len(shape) == 2}
    experts = max(widths, default=0)
    used = tuple(
        layer for layer, shape in enumerate(first) if shape is not None and not (shape[1:] == (1,) and experts > 1)
    )
    for number, part in enumerate(raw):
        if len(part.shapes) != len(first):
            raise ForestageError(
                f"{path}: {_named(NAME, number, len(raw))}: {len(part.shapes)} layers, but the first pass has "
                f"{len(first)}"
            )
        reference: tuple[int, ...] | None = None
        for layer, shape in enumerate(part.shapes):
            place = f"{path}: {_named(NAME, number, len(raw))} of layer {layer}"
            if layer not in used:
                if shape is not None and shape[1:] != (1,):
                    raise ForestageError(f"{place}: {list(shape)}, but the layer is dense in the first pass")
                continue
            if shape is None or len(shape) != 2 or 0 in shape:
                found = "None" if shape is None else list(shape)
                raise ForestageError(f"{place}: {found}; expected [batch · sequence, experts]")
            if reference is None:
                reference = (shape[0], experts if number else shape[1])
            if shape != reference:
                raise ForestageError(f"{place}: {list(shape)}, but layer {used[0]} has {list(reference)}")
    if not used:
        raise ForestageError(f"{path}: {NAME}: no layer holds logits")
    return used, experts


def _grid(path: Path, named: dict[str, Any], name: str, number: int | None, passes: int) -> Tokens | None:
    """A grid of whole numbers ``[batch, columns]``."""
    grid = named.get(name)
    if grid is None:
        return None
    place = f"{path}: {name}" if number is None else f"{path}: {_named(name, number, passes)}"
    if not isinstance(grid, np.ndarray) or grid.ndim != 2 or grid.dtype.kind not in "iub" or not grid.size:
        raise ForestageError(f"{place}: expected integers [batch, sequence]")
    if name == "attention_mask" and not np.isin(grid, (0, 1)).all():
        raise ForestageError(f"{place}: expected 0 or 1")
    return grid.astype(np.int64)


def _named(name: str, number: int, passes: int) -> str:
    """The name of a pass's value, for errors."""
    return name if passes == 1 else f"{name} of pass {number}"


def _prompt_passes(path: Path, widths: Sequence[int], batch_is_stated: bool) -> int:
    """Number of passes for the prompt: the first, and those of several tokens after it; then passes have one token."""
    count = 1
    while count < len(widths) and widths[count] > 1:
        count += 1
    for number in range(count, len(widths)):
        if widths[number] > 1:
            raise ForestageError(
                f"{path}: pass {number} is of {widths[number]} tokens, after one of a single token: another prompt, or "
                "tokens that may have been rejected; save each generation in a file of its own"
            )
    if count > 1 and not batch_is_stated:
        raise ForestageError(
            f"{path}: pass 1 has {widths[1]} rows, of as many sequences or tokens: save input_ids [batch, sequence] "
            "with each pass"
        )
    return count


def _tokens(
    path: Path, own: list[dict[str, Tokens | None]], common: dict[str, Tokens | None], widths: Sequence[int]
) -> list[Tokens | None]:
    """The tokens that each pass processed."""
    total = sum(widths)
    for number, part in enumerate(own):
        grid = part["input_ids"]
        if grid is not None and grid.shape[1] != widths[number]:
            raise ForestageError(
                f"{path}: {_named('input_ids', number, len(own))}: expected integers [batch, sequence], "
                f"{widths[number] * len(grid)} in all; found {list(grid.shape)}"
            )
    name = next((name for name in ("sequences", "input_ids") if common[name] is not None), None)
    if name is None:
        return [part["input_ids"] for part in own]
    grid = common[name]
    assert grid is not None
    # The last token of a generation is never processed.
    if grid.shape[1] not in ((total, total + 1) if name == "sequences" else (total,)):
        raise ForestageError(
            f"{path}: {name}: {grid.shape[1]} tokens, but the passes processed {total}; save what each pass "
            "processed, or generate's sequences as 'sequences'"
        )
    ends = np.cumsum(widths)
    tokens: list[Tokens | None] = []
    for part, width, end in zip(own, widths, ends, strict=True):
        piece = grid[:, end - width : end]
        stated = part["input_ids"]
        if stated is not None and not np.array_equal(stated, piece):
            raise ForestageError(f"{path}: {name}: differs from the input_ids of the passes")
        tokens.append(piece)
    return tokens


def _kept(
    path: Path,
    own: list[dict[str, Tokens | None]],
    common: Tokens | None,
    widths: Sequence[int],
    batch: int,
    prompt_passes: int,
) -> list[npt.NDArray[np.bool_]]:
    """Which tokens of each pass are not padding; a mask covers the pass's own tokens, or all up to it."""
    ends = np.cumsum(widths).tolist()
    kept = []
    for number, (part, width, end) in enumerate(zip(own, widths, ends, strict=True)):
        mask = part["attention_mask"]
        if mask is not None:
            if mask.shape[1] not in (width, end):
                raise ForestageError(
                    f"{path}: {_named('attention_mask', number, len(own))}: {mask.shape[1]} columns; its shape differs "
                    f"from that of input_ids ({width} tokens, {end} so far)"
                )
            kept.append(mask[:, mask.shape[1] - width :] == 1)
        else:
            kept.append(np.ones((batch, width), np.bool_))
    if common is None:
        return kept
    prompt = ends[prompt_passes - 1]
    if common.shape[1] not in (prompt, ends[-1]):
        raise ForestageError(
            f"{path}: attention_mask: {common.shape[1]} columns; the prompt has {prompt} tokens, all passes {ends[-1]}"
        )
    return [
        keep & (common[:, end - width : end] == 1) if end <= common.shape[1] else keep
        for keep, width, end in zip(kept, widths, ends, strict=True)
    ]


def _refuse_holes(path: Path, kept: list[npt.NDArray[np.bool_]], first: int) -> None:
    """Refuse a token that is left out between two that are kept, which would become neighbours.

    Args:
        path: the file.
        kept: of passes in a row, ``[batch, width]`` each.
        first: column of the first of them.
    """
    if not kept:
        return
    mask = np.concatenate(kept, axis=1)
    begun = np.logical_or.accumulate(mask, axis=1)
    goes_on = np.logical_or.accumulate(mask[:, ::-1], axis=1)[:, ::-1]
    holes = np.argwhere(~mask & begun & goes_on)
    if len(holes):
        sequence, column = (int(place) for place in holes[0])
        raise ForestageError(
            f"{path}: attention_mask: sequence {sequence}, token {first + column}: 0 between tokens that are 1; "
            "padding stands at a sequence's beginning or end: take such tokens out of input_ids before the model "
            "runs, or set them to 1 if they are of the text"
        )


def _end_at_padding(
    path: Path,
    beside: dict[str, Any],
    tokens: list[Tokens | None],
    kept: list[npt.NDArray[np.bool_]],
    prompt_passes: int,
) -> None:
    """Mark padding after the end of each generated sequence, while others of the batch go on."""
    batch = len(kept[0])
    if batch == 1 or len(kept) == prompt_passes:
        return
    if PAD_TOKEN not in beside:
        raise ForestageError(
            f"{path}: {PAD_TOKEN}: missing: while some of the {batch} sequences are generated, others have ended and "
            f"are padded; save {PAD_TOKEN} (None, or -1 in safetensors, where there is no padding)"
        )
    stated = beside[PAD_TOKEN]
    if isinstance(stated, np.ndarray) and stated.size == 1 and stated.dtype.kind in "iu":
        stated = int(stated.reshape(-1)[0])
    if stated is not None and type(stated) is not int:
        raise ForestageError(f"{path}: {PAD_TOKEN}: expected a token's index")
    if stated is None or stated == -1:
        return
    ended = np.zeros(batch, np.bool_)
    for token, keep in zip(tokens[prompt_passes:], kept[prompt_passes:], strict=True):
        if token is None:
            raise ForestageError(f"{path}: input_ids: missing of a pass; without them no padding is told")
        ended |= token[:, 0] == stated
        keep &= ~ended[:, None]
