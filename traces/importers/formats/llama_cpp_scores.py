"""The choice that follows from llama.cpp's score tensors, where ``ffn_moe_topk`` was not written out, or to check it.

What ``build_moe_ffn`` (llama.cpp, ``src/llama-graph.cpp``) names on its way, each ``[tokens, experts]``:

* ``ffn_moe_logits``: the router's product with the hidden state. Where the router's linear layer has a bias (gpt-oss),
it is not in it yet; then comes ``ffn_moe_logits_biased``, which is what the choice is made from.
* ``ffn_moe_probs``: their softmax or sigmoid; of gpt-oss, the logits again.
* ``ffn_moe_probs_biased``: with the bias that is added for the choice (``exp_probs_b``).
* ``ffn_moe_probs_masked``: −∞ outside the chosen groups. Groups are compared by their best two whatever the model, and
  whether they are limited depends on llama.cpp's version and the model file.

The last of these that there is decides: k largest of it. From logits and plain probabilities the choice follows where
the model's rule says so (``assembly.selection``). Llama 4 chooses by the logits, whose order its probabilities keep.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catalog.errors import ForestageError
from traces.importers.assembly.models import RecordedModel
from traces.importers.assembly.selection import NO_BIAS, check_shape, known_rule, read_bias, selection_rule
from traces.importers.assembly.selection_rule import (
    Floats,
    Score,
    SelectionRule,
    select_experts,
    weigh_experts,
)
from traces.importers.assembly.selection_table import KnownModel, known_model
from traces.importers.options import ImportOptions, option_name
from traces.importers.report import Report

SCORES = ("logits", "logits_biased", "probs", "probs_biased", "probs_masked")
"""Kinds of score tensors, in the order in which llama.cpp makes them."""

SUM_TOLERANCE = 0.01
"""Softmaxed rows sum to 1 within this (llama.cpp keeps them in f32)."""


@dataclass(frozen=True, eq=False)
class Scored:
    """What follows of some tokens of a layer.

    Attributes:
        ids: ``[tokens, top_k]``, the heaviest weight first (the best score, where there are no weights).
        weights: ``[tokens, top_k]``, or ``None``.
        open: ``[tokens]``, where another choice is as good.
    """

    ids: npt.NDArray[np.int32]
    weights: Floats | None
    open: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ScorePlan:
    """How the choice follows.

    Attributes:
        decides: the kind of tensor that the choice is made of.
        rule: what is done with it; ``None``: it decides by itself, and the k largest of it are chosen.
        bias: ``[layers, experts]``, where the rule has one.
        weighed_by: the kind of tensor that weights are made of, by ``weight_rule``; ``None``: there are none.
        top_k: experts a token.
    """

    decides: str
    rule: SelectionRule | None
    bias: Floats | None
    weighed_by: str | None
    weight_rule: SelectionRule
    top_k: int

    @property
    def kinds(self) -> tuple[str, ...]:
        """The tensors that are read."""
        return (self.decides,) if self.weighed_by in (None, self.decides) else (self.decides, str(self.weighed_by))

    def choose(self, scores: Mapping[str, tuple[str, Floats]], column: int) -> Scored:
        """The experts of a layer's tokens.

        Args:
            scores: by kind, what to call the tensor, and its ``[tokens, experts]``.
            column: the layer's place among the recorded ones.

        Raises:
            ForestageError: if the numbers are not what the tensor's name says.
        """
        what, values = scores[self.decides]
        _check_finite(what, values, barred=self.decides == "probs_masked")
        if self.rule is None:
            found = select_experts(SelectionRule(score="logits"), values, self.top_k)
            if not np.isfinite(np.take_along_axis(values, found.ids, axis=1)).all():
                raise ForestageError(f"{what}: fewer than {self.top_k} experts are not barred; see --top-k")
        else:
            kind = _kind_of(self.decides, values)
            rule = _as_they_are(self.rule, self.decides, kind, what)
            bias = None if self.bias is None else self.bias[column]
            found = select_experts(rule, values, self.top_k, bias, values_are=kind)
        if self.weighed_by is None:
            return Scored(found.ids, None, found.open)
        what, values = scores[self.weighed_by]
        _check_finite(what, values, barred=False)
        kind = _kind_of(self.weighed_by, values)
        weights = weigh_experts(_as_they_are(self.weight_rule, self.weighed_by, kind, what), values, kind, found.ids)
        if weights is None:
            return Scored(found.ids, None, found.open)
        order = np.argsort(-weights, axis=1, kind="stable")
        return Scored(
            np.take_along_axis(found.ids, order, axis=1), np.take_along_axis(weights, order, axis=1), found.open
        )


def plan_scores(
    kinds: frozenset[str],
    options: ImportOptions,
    model: RecordedModel,
    top_k: int,
    origin: Path,
    own_indices: bool,
    report: Report,
) -> ScorePlan:
    """How the choice follows from tensors of these ``kinds``.

    Args:
        kinds: of ``SCORES``, those that every layer has.
        options: what the user says.
        model: whose recording it is.
        top_k: experts a token.
        origin: the dump, for errors.
        own_indices: whether the layers' numbers are surely the model's own.
        report: takes the warnings.

    Raises:
        ForestageError: naming what is missing, and how it is given.
    """
    if top_k > model.experts:
        raise ForestageError(f"{origin}: top-k {top_k} of {model.experts} experts; see --top-k and --experts")
    known = known_model(model.name)
    base = _base(kinds, known, model.name, str(origin))
    direct = _deciding(kinds, options, known, model.name, str(origin))
    if direct is not None:
        return _direct_plan(direct, base, options, known, model.name, top_k, str(origin), report)
    if base is None:
        raise ForestageError(f"{origin}: {_NEITHER}")
    chosen = selection_rule(_llama_groups(options, known, model.name, str(origin)), model.name, str(origin), report)
    rule = chosen.rule
    if known is not None and options.groups is not None and options.top_groups is not None:
        rule = rule.model_copy(update={"groups": options.groups, "top_groups": options.top_groups})
    if rule.limits_groups and rule.group_score != "best_two":
        raise ForestageError(
            f"{origin}: {model.name} compares groups by their best expert, llama.cpp by their best two; write out "
            "ffn_moe_topk-<l> or ffn_moe_probs_masked-<l>"
        )
    if rule.weight == "sparse_mixer":
        report.warn(f"{origin}: without gate weights: llama.cpp does not weigh the experts of {model.name} as it does")
        rule = rule.model_copy(update={"weight": None})
    if known is None and base == "logits":
        report.warn(
            f"{origin}: ffn_moe_logits-<l> are taken as all that {model.name} chooses by; if its router has a bias "
            "of its own, ffn_moe_logits_biased-<l> is needed"
        )
    chosen = replace(chosen, rule=rule)
    check_shape(chosen, model.name, model.experts, top_k, str(origin))
    bias = read_bias(options, chosen, model, own_indices, report)
    return ScorePlan(base, rule, bias, base if rule.weight is not None else None, rule, top_k)


_NEITHER = (
    "the choice follows from ffn_moe_probs_masked-<l>, or from ffn_moe_logits-<l> or ffn_moe_probs-<l> where the "
    "model's rule is known; write out one of them, or ffn_moe_topk-<l>"
)


def _base(kinds: frozenset[str], known: KnownModel | None, model: str, origin: str) -> str | None:
    """The tensor before any bias for the choice: logits whole, or probabilities."""
    if "logits_biased" in kinds:
        return "logits_biased"
    if "logits" in kinds and not (known is not None and known.family.router_bias):
        return "logits"
    if "probs" in kinds:
        return "probs"
    if "logits" in kinds and not kinds & {"probs_biased", "probs_masked"}:
        raise ForestageError(
            f"{origin}: ffn_moe_logits-<l> of {model} do not have its router's bias yet; write out "
            "ffn_moe_logits_biased-<l> or ffn_moe_topk-<l>"
        )
    return None


def _deciding(
    kinds: frozenset[str], options: ImportOptions, known: KnownModel | None, model: str, origin: str
) -> str | None:
    """The tensor of which the k largest are the choice, if there is one."""
    if "probs_masked" in kinds:
        return "probs_masked"
    if "probs_biased" not in kinds or options.selection_bias not in (None, NO_BIAS):
        return None
    if (options.groups, options.top_groups) == (1, 1) or (known is not None and known.groups == 1):
        return "probs_biased"
    if options.groups is None and options.top_groups is None:
        raise ForestageError(
            f"{origin}: whether llama.cpp limits {model} to some groups of experts is not in ffn_moe_probs_biased-<l>; "
            "write out ffn_moe_probs_masked-<l> or ffn_moe_topk-<l>, or import it with --groups 1 --top-groups 1 if it "
            "does not (the model file has no expert_group_count, or llama.cpp is too old to use it)"
        )
    return None


def _direct_plan(
    decides: str,
    base: str | None,
    options: ImportOptions,
    known: KnownModel | None,
    model: str,
    top_k: int,
    origin: str,
    report: Report,
) -> ScorePlan:
    """A tensor decides by itself; the weights follow from the one before the bias, if the model is known."""
    said = [name for name in ("select", "selection_bias") if getattr(options, name) is not None]
    if said:
        raise ForestageError(f"{origin}: {option_name(said[0])}: ffn_moe_{decides}-<l> decides by itself; leave it out")
    rule = SelectionRule(score="logits")
    if known is not None and base is not None and known.family.weight in ("softmax", "sigmoid"):
        plain = known.family.model_copy(update={"bias": False, "group_score": None})
        weighed = replace(known, family=plain, bias=False, groups=1, top_groups=1)
        rule = known_rule(options.model_copy(update={"groups": None, "top_groups": None}), weighed, model, origin)
    elif options.gate_weights is not None:
        raise ForestageError(
            f"{origin}: --gate-weights: the weights do not follow from ffn_moe_{decides}-<l>; leave it out"
        )
    if rule.weight is None:
        report.warn(
            f"{origin}: without gate weights: ffn_moe_{decides}-<l> holds the choice alone, and what {model} makes "
            "of the other tensors is not known"
        )
    return ScorePlan(decides, None, None, base if rule.weight is not None else None, rule, top_k)


def _llama_groups(options: ImportOptions, known: KnownModel | None, model: str, origin: str) -> ImportOptions:
    """Options for the rule of a model that has groups: whether llama.cpp limits them, the user must say."""
    if known is None or known.groups in (None, 1):
        return options
    if options.groups is None or options.top_groups is None:
        raise ForestageError(
            f"{origin}: {model} limits the choice to some groups of experts, but whether llama.cpp does depends on its "
            "version and on the model file; write out ffn_moe_topk-<l> or ffn_moe_probs_masked-<l>, or import it with "
            f"--groups {known.groups} --top-groups {known.top_groups} if it does, --groups 1 --top-groups 1 if not"
        )
    if (options.groups, options.top_groups) not in ((1, 1), (known.groups, known.top_groups)):
        raise ForestageError(
            f"{origin}: --groups {options.groups} --top-groups {options.top_groups}: {model} has {known.groups} and "
            f"{known.top_groups}, or llama.cpp ignores them (1 and 1)"
        )
    return options.model_copy(update={"groups": None, "top_groups": None})


def _kind_of(tensor: str, values: Floats) -> Score:
    """What a tensor's numbers are."""
    if tensor != "probs":
        return "logits"
    if not ((values >= 0) & (values <= 1 + SUM_TOLERANCE)).all():
        return "logits"
    return "softmax" if (np.abs(values.sum(axis=1) - 1) <= SUM_TOLERANCE).all() else "sigmoid"


def _as_they_are(rule: SelectionRule, tensor: str, kind: Score, what: str) -> SelectionRule:
    """The rule for numbers that are a score already.

    Raises:
        ForestageError: if they are another.
    """
    if kind == "logits" and tensor == "probs" and rule.score != "logits":
        raise ForestageError(f"{what}: no probabilities, but the model chooses by its {rule.score}")
    if kind in ("logits", rule.score):
        return rule
    if rule.score == "logits" and not rule.bias and not rule.limits_groups and rule.weight in (None, kind):
        return rule.model_copy(update={"score": kind})  # the same order
    raise ForestageError(f"{what}: {kind} scores, but the model chooses by {rule.score}, or weighs by {rule.weight}")


def _check_finite(what: str, values: Floats, *, barred: bool) -> None:
    """Refuse what is not finite; −∞ may bar an expert."""
    bad = np.argwhere(~(np.isfinite(values) | (barred & (values == -np.inf))))
    if len(bad):
        token, expert = (int(place) for place in bad[0])
        raise ForestageError(
            f"{what}: token {token}, expert {expert}: {values[token, expert]}; expected a finite number: the file is "
            "of other numbers than f32, or the model overflowed; write it out again, of a model that does not"
        )
