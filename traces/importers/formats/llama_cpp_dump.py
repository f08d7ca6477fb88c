"""llama.cpp's routing tensors, written out by an eval callback: ``ffn_moe_topk-<l>`` and ``ffn_moe_weights-<l>``.

Without the first, the choice may follow from the router's scores (``llama_cpp_scores``); with both, they must agree.

The source is a folder of ``.npy`` or ``.bin`` files, or one ``.npz``, with those names; weights may be absent. A number
before the name distinguishes several evaluations of the graph, in ascending order: ``<evaluation>/ffn_moe_topk-<l>`` (a
folder each, or such names in the ``.npz``). Layout of the tensors (NumPy's axes are ggml's reversed):

* ``ffn_moe_topk-<l>``: integers ``[tokens, stride]``; the first k of a row are the chosen experts, best first. ggml
  makes the tensor a *view* into a sort of all experts, so that its row stride is that of all experts. A ``.bin`` has
  the view's bytes as ``ggml_backend_tensor_get`` gives ``ggml_nbytes`` of them: i32, (tokens − 1) · experts + k
  numbers, the last row without its padding. Arrays may have the padding (stride = experts) or not (stride = k).
* ``ffn_moe_weights-<l>``: ``[tokens, k]``, a third axis of 1 allowed; a ``.bin`` of f32. For gpt-oss they are the
  chosen experts' *logits*, of which the softmax is taken.
* ``ffn_moe_logits-<l>`` and the other scores: floats ``[tokens, experts]``; a ``.bin`` of f32.

k comes from the weights, ``--top-k`` or the model. In the last layer of a prompt, possibly only the last token is
present. Evaluations of several tokens are prefill, of one token decode; ``ForwardPasses`` determines where sequences
begin.

The log that ``llama-eval-callback`` prints is refused: it rounds values, and prints only the first and last ones.
"""

import contextlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from catalog import load_catalog
from catalog.errors import ForestageError
from traces.importers.assembly.array_file import UNNAMED, read_arrays
from traces.importers.assembly.builder import TraceBuilder
from traces.importers.assembly.forward_passes import ForwardPasses
from traces.importers.assembly.models import RecordedModel
from traces.importers.assembly.row_trace import ROW_OPTIONS, label, model_of_layers, source_of
from traces.importers.assembly.selection import SELECTION_OPTIONS, check_named
from traces.importers.assembly.selection_table import known_model
from traces.importers.assembly.text_file import readable
from traces.importers.formats.llama_cpp_scores import SCORES, Scored, ScorePlan, plan_scores
from traces.importers.importer import Importer
from traces.importers.options import ImportOptions, option_name
from traces.importers.report import Report
from traces.schema import DECODE, PREFILL
from traces.trace import RoutingTrace
from traces.validation import counted_from_one, names_first

NAME = "llama_cpp_dump"
TENSOR = re.compile(r"(?:([0-9]{1,9})/)?ffn_moe_(topk|weights|" + "|".join(SCORES) + r")-([0-9]{1,5})")
LOG_MARKS = (b"ggml_debug:", b"common_debug_cb_eval:")

Array = npt.NDArray[Any]
Tensors = dict[tuple[str, int], tuple[str, Path | Array]]
"""One evaluation: (kind, layer) → the tensor's name for errors, and its file or contents."""


def sniff(path: Path, start: bytes) -> bool:
    """A folder or ``.npz`` with such a tensor, or the log of ``llama-eval-callback``."""
    if path.is_dir():
        return bool(_folder_files(path))
    if start.startswith(b"PK\x03\x04"):
        return any(f"ffn_moe_{kind}-".encode() in start for kind in ("topk", "weights", *SCORES))
    return _is_log(start)


def read(path: Path, options: ImportOptions, report: Report) -> RoutingTrace:
    """Import ``path``, a folder or an ``.npz``.

    Raises:
        ForestageError: naming the file and tensor that is not as described above, or the option that is needed.
    """
    evaluations = _evaluations(path)
    first = evaluations[min(evaluations)]
    layers = _layers(path, first)
    chosen = any(kind == "topk" for kind, _ in first)
    weighted = chosen and any(kind == "weights" for kind, _ in first)
    if weighted and (lacking := [layer for layer in layers if ("weights", layer) not in first]):
        raise ForestageError(f"{path}: lacks ffn_moe_weights-{lacking[0]}, which other layers have")
    if not chosen:
        check_named(options, str(path))
    top_k = _top_k(options, path, first)
    model = model_of_layers(options, path, layers, top_k, report, experts=None if chosen else _experts(first))
    if top_k > model.experts:
        raise ForestageError(f"{path}: top-k {top_k} of {model.experts} experts; see --top-k and --experts")
    plan = _plan(path, options, model, layers, first, top_k, chosen, report)
    wanted = {"topk", "weights", *(() if plan is None else plan.kinds)}
    softmax = _softmax_of_chosen(path, options, model, weighted)
    reader = _Evaluations(layers, top_k, model, plan, chosen, softmax)
    weighted = weighted or (not chosen and plan is not None and plan.weighed_by is not None)
    builder = TraceBuilder(path, layers=len(layers), top_k=top_k, weights=weighted)
    passes = ForwardPasses()
    ascending = True
    for done, (number, tensors) in enumerate(report.counted(sorted(evaluations.items()))):
        place = f"{path}: evaluation {number}"
        if number != min(evaluations) + done:
            raise ForestageError(f"{place}: the one before is missing; a sequence would have a gap that nothing shows")
        if differing := sorted(key for key in set(tensors) ^ set(first) if key[0] in wanted):
            kind, layer = differing[0]
            state = "has" if (kind, layer) in tensors else "lacks"
            raise ForestageError(f"{place}: {state} ffn_moe_{kind}-{layer}, unlike the first")
        ids, weights = reader.read(tensors)
        ascending = ascending and bool((np.diff(ids[-1], axis=1) > 0).all())
        if passes.begins(len(ids), place):
            builder.end_sequence(*label(options, NAME))
        phase = PREFILL if len(ids) > 1 else DECODE
        builder.append(ids, weights=weights if weighted else None, phase=phase, where=f"evaluation {number}")
    builder.end_sequence(*label(options, NAME))
    if not chosen and reader.open_rows:
        report.warn(
            f"{path}: in {reader.open_rows} rows (token, layer) the last chosen expert has the score of one that was "
            "not, or nearly: the model may have chosen the other"
        )
    ranked = True if not chosen else None if weighted else top_k == 1 or not ascending
    kind_of_weights = None
    if not chosen and plan is not None and plan.weighed_by is not None:
        kind_of_weights = plan.weight_rule.gate_weight_kind
    return builder.finish(
        model,
        report,
        source=source_of(NAME, path),
        ranked=ranked,
        gate_weight_kind=kind_of_weights,
        missing_told=True,
    )


def _layers(path: Path, tensors: Tensors) -> tuple[int, ...]:
    """The layers whose choice is recorded or follows from scores."""
    kinds = ["topk"] if any(kind == "topk" for kind, _ in tensors) else list(SCORES)
    layers = tuple(sorted({layer for kind, layer in tensors if kind in kinds}))
    if not layers:
        raise ForestageError(f"{path}: holds no ffn_moe_topk-<layer>")
    return layers


def _experts(tensors: Tensors) -> int | None:
    """Experts per layer, if the shape of an array of scores gives it (a ``.bin`` has no shape)."""
    for (kind, _), (_, tensor) in sorted(tensors.items()):
        if kind in SCORES and not _is_bin(tensor):
            array = _array(tensor)
            return int(array.shape[1]) if array.ndim == 2 else None
    return None


def _plan(
    path: Path,
    options: ImportOptions,
    model: RecordedModel,
    layers: tuple[int, ...],
    tensors: Tensors,
    top_k: int,
    chosen: bool,
    report: Report,
) -> ScorePlan | None:
    """How the choice follows from the scores; beside ``ffn_moe_topk`` only if no option is needed for it."""
    kinds = frozenset(kind for kind in SCORES if all((kind, layer) in tensors for layer in layers))
    own_indices = (
        options.layers is not None
        or layers != tuple(range(len(layers)))
        or load_catalog().match_shape(model.name) is not None
    )
    if not chosen:
        return plan_scores(kinds, options, model, top_k, path, own_indices, report)
    stated = [name for name in sorted(SELECTION_OPTIONS) if getattr(options, name) is not None]
    if stated:
        raise ForestageError(f"{path}: {option_name(stated[0])}: ffn_moe_topk is the choice itself; leave it out")
    if options.model is None or known_model(model.name) is None:
        return None
    with contextlib.suppress(ForestageError):  # what a check lacks, the import need not have
        return plan_scores(kinds, options, model, top_k, path, own_indices, Report())
    return None


def _softmax_of_chosen(path: Path, options: ImportOptions, model: RecordedModel, weighted: bool) -> bool:
    """Whether ``ffn_moe_weights`` are logits whose softmax the model takes (gpt-oss).

    Raises:
        ForestageError: if there are weights, and only the shape suggests that it is such a model.
    """
    known = known_model(model.name)
    are_logits = known is not None and known.family.router_bias
    if are_logits and weighted and options.model is None:
        raise ForestageError(
            f"{path}: of {model.name}, whose shape this is, ffn_moe_weights are logits, of other models they are "
            "not; name it with --model"
        )
    return are_logits


def _is_log(start: bytes) -> bool:
    """Whether a text is the log of ``llama-eval-callback``."""
    return any(mark in start for mark in LOG_MARKS)


def _folder_files(folder: Path) -> dict[str, Path]:
    """Name (``0/ffn_moe_topk-1``) → tensor file, in a folder and its subfolders."""
    files: dict[str, Path] = {}
    for file in sorted([*folder.glob("ffn_moe_*"), *folder.glob("*/ffn_moe_*")]):
        name = file.relative_to(folder).with_suffix("").as_posix()
        if file.suffix not in (".npy", ".bin") or not TENSOR.fullmatch(name):
            continue
        if name in files:
            raise ForestageError(f"{file}: the tensor is also in {files[name].name}; remove one of them")
        files[name] = file
    return files


def _evaluations(path: Path) -> dict[int, Tensors]:
    """The tensors of every evaluation, by its number."""
    named: Mapping[str, Path | Array]
    if path.is_dir():
        named = _folder_files(path)
    else:
        with readable(path), path.open("rb") as file:
            start = file.read(1 << 16)
        if _is_log(start):
            raise ForestageError(
                f"{path}: the log of llama-eval-callback rounds and leaves out values (...); write the tensors' bytes "
                "into a folder instead, as docs/import-formats.md shows, and import that"
            )
        named = read_arrays(path)
    found: dict[int, Tensors] = {}
    numbered: set[bool] = set()
    for name, tensor in named.items():
        match = TENSOR.fullmatch(name)
        if match is None:
            continue
        numbered.add(match[1] is not None)
        if len(numbered) > 1:
            raise ForestageError(
                f"{path}: some tensors have an evaluation's number (0/ffn_moe_topk-0), others have not"
            )
        what = str(tensor) if isinstance(tensor, Path) else f"{path}: {name}"
        tensors = found.setdefault(int(match[1] or 0), {})
        key = (match[2], int(match[3]))
        if key in tensors:
            raise ForestageError(f"{what}: the tensor is also in {tensors[key][0]}; remove one of them")
        tensors[key] = (what, tensor)
    if not found:
        raise ForestageError(f"{path}: holds no ffn_moe_topk-<layer>")
    return found


def _top_k(options: ImportOptions, path: Path, tensors: Tensors) -> int:
    """k, from the user, the weights or the catalogue."""
    if options.top_k is not None:
        return options.top_k
    for kind, layer in sorted(tensors):
        what, tensor = tensors[kind, layer]
        if kind == "weights" and not _is_bin(tensor):
            return int(_weights(what, tensor, None, softmax=True).shape[1])
    record = None if options.model is None else load_catalog().match_shape(options.model)
    if record is None:
        raise ForestageError(
            f"{path}: top-k: the tensors do not say how many experts a token uses; give --top-k, or name a model of "
            "the catalogue with --model"
        )
    return record.top_k


class _Evaluations:
    """Reads the evaluations of a dump.

    Args:
        layers: the tensors' layers, ascending.
        top_k: experts per token.
        model: the recorded model.
        plan: how the choice follows from scores.
        chosen: whether the choice is recorded; then the plan checks it.
        softmax: whether the recorded weights are logits.

    Attributes:
        open_rows: number of rows (token, layer) read so far for which another choice is as good.
    """

    def __init__(
        self,
        layers: tuple[int, ...],
        top_k: int,
        model: RecordedModel,
        plan: ScorePlan | None,
        chosen: bool,
        softmax: bool,
    ) -> None:
        self.layers, self.top_k, self.model = layers, top_k, model
        self.plan, self.chosen, self.softmax = plan, chosen, softmax
        self.open_rows = 0

    def read(self, tensors: Tensors) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Ids (−1 where missing) and weights (0 without) of an evaluation, both ``[tokens, layers, top_k]``."""
        found = [self._layer(tensors, column, layer) for column, layer in enumerate(self.layers)]
        tokens = max(len(ids) for _, ids, _ in found)
        ids = np.full((tokens, len(self.layers), self.top_k), -1, dtype=np.int64)
        weights = np.zeros(ids.shape)
        for column, (what, part, values) in enumerate(found):
            if len(part) != tokens and (column != len(found) - 1 or len(part) != 1):
                raise ForestageError(f"{what}: {len(part)} tokens; another layer has {tokens}")
            ids[tokens - len(part) :, column] = part
            if self.chosen:
                values = self._recorded_weights(tensors, self.layers[column], part)
            if values is not None:
                weights[tokens - len(part) :, column] = values
        return ids, weights

    def _layer(
        self, tensors: Tensors, column: int, layer: int
    ) -> tuple[str, npt.NDArray[np.int64], npt.NDArray[Any] | None]:
        """The name of a layer's choice, its ids ``[tokens, top_k]``, and the weights that follow from scores."""
        if not self.chosen:
            what, scored = self._scored(tensors, column, layer)
            self.open_rows += int(scored.open.sum())
            return what, scored.ids.astype(np.int64), scored.weights
        what, tensor = tensors["topk", layer]
        ids = _chosen(what, tensor, self.top_k, self.model.experts)
        if self.plan is not None:
            self._check(ids, what, *self._scored(tensors, column, layer))
        return what, ids, None

    def _recorded_weights(
        self, tensors: Tensors, layer: int, ids: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64] | None:
        """The recorded weights of a layer, for its choice ``ids``."""
        if ("weights", layer) not in tensors:
            return None
        what, tensor = tensors["weights", layer]
        values = _weights(what, tensor, self.top_k, softmax=self.softmax)
        if values.shape != ids.shape:
            raise ForestageError(f"{what}: {list(values.shape)}; the ids have {list(ids.shape)}")
        return values

    def _scored(self, tensors: Tensors, column: int, layer: int) -> tuple[str, Scored]:
        """The name of a layer's scores, and what follows from them."""
        assert self.plan is not None
        scores = {kind: _scores(*tensors[kind, layer], self.model.experts) for kind in self.plan.kinds}
        what, values = scores[self.plan.decides]
        other = next((name for name, part in scores.values() if len(part) != len(values)), None)
        if other is not None:
            raise ForestageError(f"{other}: another number of tokens than {what}")
        return what, self.plan.choose(scores, column)

    def _check(self, ids: npt.NDArray[np.int64], what: str, name: str, scored: Scored) -> None:
        """Check that the recorded choice is the one that follows from scores, unless another is as good."""
        if len(scored.ids) != len(ids):
            raise ForestageError(f"{name}: {len(scored.ids)} tokens; {what} has {len(ids)}")
        wrong = (np.sort(ids, axis=1) != np.sort(scored.ids, axis=1)).any(axis=1) & ~scored.open
        if wrong.any():
            token = int(np.argmax(wrong))
            raise ForestageError(
                f"{what}: token {token}: {ids[token].tolist()}, but of {name} {self.model.name} chooses "
                f"{scored.ids[token].tolist()} ({int(wrong.sum())} of {len(ids)} tokens differ): was the row stride "
                "kept, and is the model the right one (--model)?"
            )


def _scores(what: str, tensor: Path | Array, experts: int) -> tuple[str, npt.NDArray[np.float32]]:
    """The name of a tensor of scores, and its values ``[tokens, experts]``."""
    if _is_bin(tensor):
        numbers = _from_bytes(tensor, np.dtype("<f4"))
        if not len(numbers) or len(numbers) % experts:
            raise ForestageError(f"{what}: {len(numbers)} numbers, no multiple of {experts} experts; see --experts")
        array: Array = numbers.reshape(-1, experts)
    else:
        array = _array(tensor)
    if array.dtype.kind != "f" or array.ndim != 2 or array.shape[1] != experts or not len(array):
        raise ForestageError(f"{what}: {array.dtype} {list(array.shape)}; expected floats [tokens, {experts}]")
    with np.errstate(over="ignore"):  # becomes inf, which is refused
        return what, array.astype(np.float32)


def _is_bin(tensor: Path | Array) -> TypeGuard[Path]:
    """Whether a tensor is a file of bare bytes."""
    return isinstance(tensor, Path) and tensor.suffix == ".bin"


def _chosen(what: str, tensor: Path | Array, top_k: int, experts: int) -> npt.NDArray[np.int64]:
    """The chosen experts ``[tokens, top_k]`` of a tensor ``ffn_moe_topk``."""
    if _is_bin(tensor):
        numbers = _from_bytes(tensor, np.dtype("<i4"))
        rows, rest = divmod(len(numbers) - top_k, experts)
        if rows < 0 or rest:
            raise ForestageError(
                f"{what}: {len(numbers)} numbers; expected (tokens - 1) · {experts} + {top_k}, the view's bytes (see "
                "--experts, --top-k)"
            )
        padding = np.zeros(experts - top_k, dtype=numbers.dtype)
        array: Array = np.concatenate([numbers, padding]).reshape(-1, experts)
    else:
        array = _array(tensor)
    if array.dtype.kind not in "iu" or array.ndim != 2 or array.shape[1] not in (top_k, experts) or not len(array):
        raise ForestageError(
            f"{what}: {array.dtype} {list(array.shape)}; expected integers [tokens, {experts}] or [tokens, {top_k}]"
        )
    chosen = array[:, :top_k].astype(np.int64)
    ordered = np.sort(chosen, axis=1)
    bad = (chosen < 0).any(axis=1) | (chosen >= experts).any(axis=1) | (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
    if bad.any():
        token = int(np.argmax(bad))
        raise ForestageError(
            f"{what}: token {token}: {chosen[token].tolist()}; expected distinct experts from 0 to {experts - 1}"
            + (
                counted_from_one(int(chosen.max()), experts, has_first=names_first(chosen))
                or " (was the row stride kept?)"
            )
        )
    return chosen


def _weights(what: str, tensor: Path | Array, top_k: int | None, *, softmax: bool) -> npt.NDArray[np.float64]:
    """The weights ``[tokens, k]`` of a tensor ``ffn_moe_weights``, or their softmax."""
    if _is_bin(tensor):
        numbers = _from_bytes(tensor, np.dtype("<f4"))
        if top_k is None or not len(numbers) or len(numbers) % top_k:
            raise ForestageError(f"{what}: {len(numbers)} numbers, which is no multiple of the top-k {top_k}")
        array: Array = numbers.reshape(-1, top_k)
    else:
        array = _array(tensor)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype.kind != "f" or array.ndim != 2 or 0 in array.shape:
        raise ForestageError(f"{what}: {array.dtype} {list(array.shape)}; expected floats [tokens, k]")
    values = array.astype(np.float64)
    bad = np.argwhere(~(np.isfinite(values) & (softmax | (values >= 0))))
    if len(bad):
        token, choice = (int(place) for place in bad[0])
        raise ForestageError(f"{what}: token {token}: weight {values[token, choice]}; must be finite and not negative")
    if not softmax:
        return values
    exponentials = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(exponentials / exponentials.sum(axis=1, keepdims=True))


def _array(tensor: Path | Array) -> Array:
    """The array itself, read if it is a file."""
    if not isinstance(tensor, Path):
        return tensor
    arrays = read_arrays(tensor)
    if UNNAMED not in arrays:
        raise ForestageError(f"{tensor}: holds no single array; expected .npy")
    return arrays[UNNAMED]


def _from_bytes(file: Path, dtype: np.dtype[Any]) -> Array:
    """The numbers of a ``.bin``."""
    with readable(file):
        data = file.read_bytes()
    if len(data) % dtype.itemsize:
        raise ForestageError(f"{file}: {len(data)} bytes, which is no multiple of {dtype.itemsize}; was it cut off?")
    return np.frombuffer(data, dtype=dtype)


IMPORTER = Importer(
    NAME,
    "llama.cpp's ffn_moe_topk-<l> and ffn_moe_weights-<l>, a folder (.npy, .bin) or .npz",
    sniff,
    read,
    ROW_OPTIONS | SELECTION_OPTIONS,
    folders=True,
)
