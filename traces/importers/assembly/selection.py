"""The rule by which a recording's experts follow from its router logits: of the model, or as the user says.

Nothing is assumed of a model that ``selection_table`` does not know: its rule is said by options, or the import
refused.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from catalog import load_catalog
from catalog.errors import ForestageError
from traces.importers.assembly.models import RecordedModel
from traces.importers.assembly.selection_bias import read_selection_bias
from traces.importers.assembly.selection_rule import Floats, SelectionRule
from traces.importers.assembly.selection_table import KnownModel, known_model
from traces.importers.assembly.stated import model_option
from traces.importers.options import ImportOptions
from traces.importers.report import Report

SELECTION_OPTIONS = frozenset({"select", "selection_bias", "groups", "top_groups", "gate_weights"})
"""What every format of router logits can be told of the rule."""

NO_BIAS = Path("none")
"""``--selection-bias none``: the router has none."""

HOW_TO_SAVE_A_BIAS = "save it from the model as it runs: docs/router-logits.md"


@dataclass(frozen=True)
class ChosenRule:
    """A rule, and what is known of its model.

    Attributes:
        rule: how experts are chosen and weighed.
        known: the model, where the table has it.
    """

    rule: SelectionRule
    known: KnownModel | None

    @property
    def returns(self) -> Literal["logits", "softmax"]:
        """What transformers records of the model."""
        return self.known.family.returns if self.known is not None else "logits"

    @property
    def router_bias(self) -> bool:
        """Whether the router's linear layer is known to have a bias."""
        return self.known is not None and self.known.family.router_bias


def selection_rule(options: ImportOptions, model: str, origin: str, report: Report) -> ChosenRule:
    """The rule of ``model``, from the table and the options.

    Raises:
        ForestageError: naming what is missing, and how it is given; or an option that contradicts what is known.
    """
    known = _known(model, origin)
    if known is not None and known.family.refusal is not None:
        raise ForestageError(
            f"{origin}: the choice of {model} does not follow from its router logits: {known.family.refusal}; import a "
            "recording of the experts that were chosen"
        )
    _check_groups(options, origin)
    rule = _stated_rule(options, model, origin) if known is None else known_rule(options, known, model, origin)
    if rule.weight is None:
        _warn_of_no_weights(known, model, origin, report)
    return ChosenRule(rule, known)


def _known(model: str, origin: str) -> KnownModel | None:
    """What the table has of the model by its name, or by the architecture that its record states.

    Raises:
        ForestageError: if the model is called by one family's name and is of another.
    """
    named = known_model(model)
    record = load_catalog().match_shape(model)
    if record is None or record.architecture is None:
        return named
    stated = known_model(record.architecture)
    if named is None:
        return stated
    if named.family.model_type != record.architecture and not named.is_published:
        raise ForestageError(
            f"{origin}: {model_option(model)}: its configuration is of {record.architecture}, whose routers are "
            "others; name it otherwise"
        )
    return named


def check_named(options: ImportOptions, origin: str) -> None:
    """Refuse scores of a model that the user does not name: models of one shape choose differently.

    Raises:
        ForestageError: without ``--model``.
    """
    if options.model is None:
        raise ForestageError(
            f"{origin}: the file names no model, and how experts are chosen depends on it, not on the shape; name it "
            "with --model (any name will do, if --select and its companions say the rule)"
        )


def check_shape(chosen: ChosenRule, model: str, experts: int, top_k: int, origin: str) -> None:
    """Refuse a rule that cannot hold of a layer of so many experts.

    Raises:
        ForestageError: saying why.
    """
    fault = chosen.rule.fault(experts, top_k)
    if fault is not None:
        raise ForestageError(f"{origin}: {model}: {fault}; see --top-k, --groups and --top-groups")


def _check_groups(options: ImportOptions, origin: str) -> None:
    """Both options of groups or none, and no more groups chosen than there are."""
    groups, chosen = options.groups, options.top_groups
    if (groups is None) != (chosen is None):
        lacking = "--top-groups" if chosen is None else "--groups"
        raise ForestageError(f"{origin}: {lacking}: missing; --groups and --top-groups are given together")
    if groups is not None and chosen is not None and chosen > groups:
        raise ForestageError(f"{origin}: --top-groups {chosen}: exceeds --groups {groups}")


def _stated_rule(options: ImportOptions, model: str, origin: str) -> SelectionRule:
    """The rule of a model that is not known, as the options say."""
    bias = options.selection_bias
    if options.select is None:
        raise ForestageError(
            f"{origin}: how {model} chooses its experts is not known; say it: --select logits, softmax or sigmoid "
            "(what its top-k is of), --selection-bias FILE where a bias is added for the choice alone, --groups N "
            "--top-groups "
            "M where it chooses within groups, --gate-weights normalised, softmax or sigmoid (what becomes of the "
            "chosen scores); or name its family by transformers' model_type (--model qwen3_moe)"
        )
    if bias is None and options.select == "sigmoid":
        raise ForestageError(
            f"{origin}: --select sigmoid: most routers that score so add a bias for the choice; import it with "
            f"--selection-bias FILE ({HOW_TO_SAVE_A_BIAS}), or with --selection-bias none if {model} has none"
        )
    groups, top_groups = options.groups or 1, options.top_groups or 1
    if top_groups < groups and options.select != "sigmoid":
        raise ForestageError(
            f"{origin}: --groups {groups}: groups of {options.select} scores are compared by their best expert in some "
            "models, by their best two in others; name a family that does as yours, --model deepseek_v2 or mistral4"
        )
    given = options.gate_weights
    if given == "softmax" and options.select == "sigmoid":
        raise ForestageError(
            f"{origin}: --gate-weights softmax: the scores are of --select sigmoid; its weights are sigmoid or "
            "normalised"
        )
    score: Literal["softmax", "sigmoid"] = "sigmoid" if "sigmoid" in (options.select, given) else "softmax"
    return SelectionRule(
        score=options.select,
        bias=bias is not None and bias != NO_BIAS,
        groups=groups,
        top_groups=top_groups,
        weight=None if given is None else score,
        normalised=given == "normalised",
    )


def known_rule(options: ImportOptions, known: KnownModel, model: str, origin: str) -> SelectionRule:
    """The rule of a model of the table; what its configuration leaves open is said by options, the rest agrees.

    Raises:
        ForestageError: naming what is missing, or the option that contradicts.
    """
    family = known.family
    if options.select is not None and not _agrees(options.select, family.score, known):
        raise ForestageError(
            f"{origin}: --select {options.select}: {model} chooses by {family.score}; leave it out, or name another "
            "model"
        )
    bias = _known_bias(options, known, model, origin)
    groups, top_groups = _known_groups(options, known, model, origin)
    weight, normalised = family.weight, known.normalised
    given = options.gate_weights
    if given is not None:
        said = "normalised" if normalised else weight if normalised is not None else None
        fitting = {"normalised", weight} if said is None else {said}
        if given not in fitting:
            what = said or (f"normalised or {weight}" if weight else "not of the logits alone")
            raise ForestageError(
                f"{origin}: --gate-weights {given}: the weights of {model} are {what}; leave it out, or name another "
                "model"
            )
        normalised = given == "normalised"
    return SelectionRule(
        score=family.score,
        bias=bias,
        groups=groups,
        top_groups=top_groups,
        group_score=family.group_score or "best_two",
        weight=None if normalised is None else weight,
        normalised=bool(normalised),
        coarse=family.coarse,
        coarse_bias=family.coarse_bias,
    )


def _agrees(select: str, score: str, known: KnownModel) -> bool:
    """Whether ``--select`` says what is known; logits and their softmax have the same order, if nothing is added."""
    plain = known.bias is False and (known.family.group_score is None or known.groups == 1)
    return select == score or (plain and {select, score} == {"logits", "softmax"})


def _known_bias(options: ImportOptions, known: KnownModel, model: str, origin: str) -> bool:
    """Whether a bias is added."""
    given, family = options.selection_bias, known.family
    if known.bias is False and given not in (None, NO_BIAS):
        raise ForestageError(f"{origin}: --selection-bias: {model} has none; leave it out, or name another model")
    if known.bias and given == NO_BIAS:
        raise ForestageError(
            f"{origin}: --selection-bias none: {model} has one ({family.bias_at}, N a layer); {HOW_TO_SAVE_A_BIAS}"
        )
    if known.bias is not False and given is None:
        maybe = "" if known.bias else ", if its configuration has use_expert_bias, or none"
        raise ForestageError(
            f"{origin}: {model} chooses by more than the logits: a bias that the file does not have is added to their "
            f"{family.score}; import it "
            f"with --selection-bias FILE{maybe}: {family.bias_at} (N a layer); {HOW_TO_SAVE_A_BIAS}"
        )
    return given is not None and given != NO_BIAS


def _known_groups(options: ImportOptions, known: KnownModel, model: str, origin: str) -> tuple[int, int]:
    """How many groups there are, and how many are chosen from."""
    groups, top_groups = options.groups, options.top_groups
    if known.groups is None or known.top_groups is None:
        if groups is None or top_groups is None:
            raise ForestageError(
                f"{origin}: {model} may choose within groups of experts; import it with --groups N --top-groups M: "
                "n_group and topk_group of its config.json (1 and 1 where they are null)"
            )
        return groups, top_groups
    if groups is not None and (groups, top_groups) != (known.groups, known.top_groups):
        raise ForestageError(
            f"{origin}: --groups {groups} --top-groups {top_groups}: {model} has {known.groups} and "
            f"{known.top_groups}; leave them out, or name another model"
        )
    return known.groups, known.top_groups


def _warn_of_no_weights(known: KnownModel | None, model: str, origin: str, report: Report) -> None:
    """Say why a trace has no gate weights."""
    if known is not None and known.family.weight is None:
        report.warn(
            f"{origin}: without gate weights: {model} multiplies them by a parameter that the file does not have"
        )
        return
    kinds = "normalised, softmax or sigmoid" if known is None else f"normalised or {known.family.weight}"
    report.warn(
        f"{origin}: without gate weights: what {model} makes of the chosen experts' scores is not known; "
        f"--gate-weights says ({kinds}; norm_topk_prob in its config.json)"
    )


def read_bias(
    options: ImportOptions,
    chosen: ChosenRule,
    model: RecordedModel,
    own_indices: bool,
    report: Report,
) -> Floats | None:
    """The bias ``[layers, experts]``, where the rule has one.

    Args:
        options: name its file.
        chosen: the rule.
        model: what was recorded.
        own_indices: whether its layers' indices are surely the model's own, so that they tell which biases are theirs.
        report: warned where one row stands for all layers, which only a model that is not known may do.

    Raises:
        ForestageError: as ``read_selection_bias``.
    """
    if not chosen.rule.bias:
        return None
    assert options.selection_bias is not None
    bias, repeated = read_selection_bias(
        options.selection_bias,
        layers=model.layer_map if own_indices else None,
        count=len(model.layer_map),
        experts=model.experts,
        may_repeat=chosen.known is None,
        record=load_catalog().match_shape(model.name),
    )
    if repeated:
        report.warn(f"{options.selection_bias}: one row, taken as the bias of all {len(model.layer_map)} layers")
    return bias
