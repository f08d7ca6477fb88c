"""Read the fields of a Hugging Face ``config.json`` without guessing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from catalog.errors import ForestageError

ALIASES: dict[str, tuple[str, ...]] = {
    "experts": ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"),
    "top_k": (
        "num_experts_per_tok", "num_experts_per_token", "moe_k", "moe_topk", "moe_top_k", "top_k_experts",
        "num_selected_experts",
    ),
    "shared": ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "num_shared_expert"),
    "shared_width": (
        "shared_expert_intermediate_size", "moe_shared_expert_intermediate_size", "shared_intermediate_size",
    ),
    "layers": ("num_hidden_layers", "n_layers", "n_layer"),
    "hidden": ("hidden_size", "d_model", "n_embd"),
    "activation": ("hidden_act", "hidden_activation", "activation_function", "dense_act_fn", "mlp_hidden_act"),
    "query_heads": ("num_attention_heads", "n_heads", "num_heads"),
}  # fmt: skip
"""The names that families give to the same field."""


@dataclass
class ConfigFields:
    """The fields of one configuration; a field that the file lacks has the default of its family's configuration class.

    Attributes:
        values: fields of the file's (nested) text model.
        defaults: defaults of the family's configuration class.
        origin: the file, for errors.
        family: ``model_type``.
        defaulted: names that were taken from ``defaults``.
    """

    values: Mapping[str, Any]
    defaults: Mapping[str, Any]
    origin: str
    family: str
    defaulted: set[str] = field(default_factory=set)

    def refuse(self, name: str, why: str) -> ForestageError:
        """The error about the field ``name``."""
        return ForestageError(f"{self.origin}: {name}: {why}")

    def given(self, name: str) -> Any:
        """The file's value of ``name`` (or of one of its aliases); ``None`` where the file has none.

        Raises:
            ForestageError: if the file gives two aliases different values.
        """
        found = {
            alias: self.values[alias] for alias in ALIASES.get(name, (name,)) if self.values.get(alias) is not None
        }
        distinct = list(found.values())
        if any(value != distinct[0] for value in distinct[1:]):
            said = ", ".join(f"{alias} is {value}" for alias, value in found.items())
            raise self.refuse(next(iter(found)), f"ambiguous: {said}; leave one of them in the file")
        return distinct[0] if distinct else None

    def get(self, name: str) -> Any:
        """The file's value, else the class's default, else ``None``."""
        value = self.given(name)
        if value is not None:
            return value
        for alias in ALIASES.get(name, (name,)):
            # A key that the file sets to null counts as given.
            if alias in self.values:
                return None
        for alias in ALIASES.get(name, (name,)):
            if self.defaults.get(alias) is not None:
                self.defaulted.add(alias)
                return self.defaults[alias]
        return None

    def integer(self, name: str, *, least: int = 1) -> int:
        """A whole number of at least ``least``.

        Raises:
            ForestageError: if it is missing or is not such a number.
        """
        value = self.optional(name, least=least)
        if value is None:
            names = " or ".join(ALIASES.get(name, (name,)))
            raise self.refuse(
                names, f"missing, and no default is known for model_type '{self.family}'; add it to the file"
            )
        return value

    def optional(self, name: str, *, least: int = 1) -> int | None:
        """As ``integer``, but ``None`` if it is missing."""
        value = self.get(name)
        return None if value is None else self._whole(self._label(name), value, least)

    def same_in_all_layers(self, name: str, layers: int, *, least: int = 1) -> int | None:
        """As ``optional``, for a field that may be a list with one entry per layer; all entries must agree.

        Raises:
            ForestageError: also if the list has another length or its entries differ: a record has one number.
        """
        value = self.get(name)
        if not isinstance(value, list):
            return None if value is None else self._whole(self._label(name), value, least)
        label = self._label(name)
        if len(value) != layers:
            raise self.refuse(label, f"a list of {len(value)} for {layers} layers, whose meaning is not known")
        if any(entry != value[0] for entry in value[1:]):
            raise self.refuse(label, "differs from layer to layer, which a record cannot say")
        return self._whole(label, value[0], least)

    def flag(self, name: str) -> bool:
        """A truth value; missing is false.

        Raises:
            ForestageError: if it is something else.
        """
        value = self.get(name)
        if value not in (None, True, False):
            raise self.refuse(name, f"{value!r} is neither true nor false")
        return bool(value)

    def indices(self, name: str, layers: int) -> tuple[int, ...] | None:
        """A list of layer indices below ``layers``; ``None`` where missing.

        Raises:
            ForestageError: if it is not such a list.
        """
        value = self.get(name)
        if value is None:
            return None
        if not _is_list_of(value, int) or any(not 0 <= index < layers for index in value):
            raise self.refuse(name, f"not a list of layer indices from 0 to {layers - 1}")
        return tuple(sorted(set(value)))

    def words(self, name: str, layers: int, known: Sequence[str]) -> tuple[str, ...] | None:
        """A list with one of the ``known`` words per layer; ``None`` where missing.

        Raises:
            ForestageError: if it has another length or an unknown word.
        """
        value = self.get(name)
        if value is None:
            return None
        if not _is_list_of(value, str) or len(value) != layers:
            raise self.refuse(name, f"not a list of {layers} words, one a layer")
        unknown = sorted(set(value) - set(known))
        if unknown:
            raise self.refuse(name, f"'{unknown[0]}' is unknown; known are {', '.join(known)}")
        return tuple(value)

    def has(self, name: str) -> bool:
        """Whether the file gives ``name`` a value other than null."""
        return self.values.get(name) is not None

    def _label(self, name: str) -> str:
        """The field's name in the file."""
        return next((alias for alias in ALIASES.get(name, (name,)) if self.has(alias)), ALIASES.get(name, (name,))[0])

    def _whole(self, label: str, value: Any, least: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.refuse(label, f"{value!r} is no whole number of at least {least}")
        return value


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(entry, kind) and not isinstance(entry, bool) for entry in value)
