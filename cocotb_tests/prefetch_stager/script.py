"""Commands for the stager's circuit with the answers of the twin, and the comparison of what the circuit did."""

from dataclasses import dataclass, field
from typing import Any

from rtl.prefetch.stager.layouts import (
    COUNTERS,
    ActionKind,
    ActionWhy,
    Command,
    StagerShape,
    action_layout,
    command_layout,
    counters_layout,
    done_layout,
    entry_layout,
    key_layout,
    settings_layout,
)
from staging.stager.answers import Step
from staging.stager.directory import NO_PLACE, NONE
from staging.stager.limits import FOREVER, StagerLimits, StagerSettings
from staging.stager.twin import Stager

COMMANDS: dict[str, Any] = {
    "set_values": Command.SET_VALUES,
    "demand": Command.DEMAND,
    "demand_residents": Command.DEMAND,
    "release": Command.RELEASE,
    "prefetch": Command.PREFETCH,
    "expire": Command.EXPIRE,
    "grant": Command.GRANT,
    "preempt": Command.PREEMPT,
    "arrive": Command.ARRIVE,
    "fail": Command.FAIL,
    "preload": Command.PRELOAD,
    "fix": Command.FIX,
    "unfix": Command.FIX,
}
"""The twin's methods: ``demand_residents`` and ``unfix`` are those with an option."""


@dataclass
class Observed:
    """What the circuit did with one command, as integers of its ports.

    Attributes:
        cycles: from the command's being taken to the next that could be.
        actions: payloads, in order.
        done: payload of the last cycle.
        levels: demand_waits, queue_empty, moving and moving_demanded afterwards, from bit 0 on.
    """

    cycles: int = 0
    actions: list[int] = field(default_factory=list)
    done: int = 0
    levels: int = 0


class StagerScript:
    """Commands told to a twin, to be told to a circuit of ``shape`` too.

    Args:
        shape: the circuit.
        settings: of both.
        layers: in use, at most the shape's.
        experts: in use, likewise.

    Attributes:
        twin: with the answers so far.
        payloads: of the commands.
        values: of each command those told, ``[experts]``, or none.
        answers: what the circuit must do, in words that can be compared (``said``).
    """

    def __init__(
        self, shape: StagerShape, settings: StagerSettings, *, layers: int | None = None, experts: int | None = None
    ) -> None:
        self.shape, self.settings = shape, settings
        used = {"layers": layers or shape.limits.layers, "experts": experts or shape.limits.experts}
        self.used = StagerLimits.model_validate({**shape.limits.model_dump(), **used})
        self.twin = Stager(self.used, settings)
        self.payloads: list[int] = []
        self.values: list[list[int]] = []
        self.answers: list[dict[str, Any]] = []

    @property
    def settings_word(self) -> int:
        """The circuit's settings."""
        of = self.settings
        most = (1 << self.shape.limits.deadline_bits) - 1
        return _packed(
            settings_layout(self.shape),
            {
                "layers": self.used.layers,
                "experts": self.used.experts,
                "by_layer": len(of.shares) > 1,
                "spare": self.used.spare,
                "value_scale": of.value_scale,
                "chance_scale": of.chance_scale,
                "price": of.price,
                "horizon": min(of.horizon, most),
                "by_recency": of.by_recency,
                "background": of.background,
                "retries": of.retries,
            },
        )

    @property
    def shares(self) -> tuple[int, ...]:
        """By layer."""
        return self.settings.shares

    def tell(self, command: str, arguments: tuple[Any, ...]) -> Step:
        """Tell the twin, and note it for the circuit."""
        before = self.twin.directory.place.tolist()
        moving = self.twin.moving[0]
        step = self._told(command, arguments)
        self.payloads.append(self._payload(command, arguments))
        self.values.append(list(arguments[1]) if command == "set_values" else [])
        transfer = step.transfer
        self.answers.append(
            {
                "command": f"{command} {arguments}",
                "cycles": step.cycles,
                "actions": [
                    (a.kind.name, a.why.name if a.why else "NONE", a.key, self._place(before[a.key]))
                    for a in step.actions
                ],
                "transfer": transfer
                and (transfer.key, self._place(transfer.place), transfer.victim, transfer.demanded),
                "stopped": command == "preempt" and self.twin.moving[0] != moving,
                "levels": self._levels(),
            }
        )
        return step

    def said(self, observed: Observed) -> dict[str, Any]:
        """What the circuit did, in the words of ``answers``."""
        done = _fields(done_layout(self.shape), observed.done)
        transfer = done["transfer"]
        actions = [_fields(action_layout(self.shape), word) for word in observed.actions]
        return {
            "cycles": observed.cycles,
            "actions": [
                (ActionKind(a["kind"]).name, ActionWhy(a["why"]).name, self._key(a["key"]), a["place"]) for a in actions
            ],
            "transfer": (
                self._key(transfer["key"]),
                transfer["place"],
                self._key(transfer["victim"]) if transfer["evicts"] else NONE,
                bool(transfer["demanded"]),
            )
            if transfer["valid"]
            else None,
            "stopped": bool(done["stopped"]),
            "levels": observed.levels,
        }

    def entry_of(self, word: int, value: int) -> dict[str, Any]:
        """An entry that the circuit showed, and its value as bits of two's complement."""
        of = _fields(entry_layout(self.shape), word)
        sign = 1 << (self.shape.time_bits - 1)
        value = (value & (2 * sign - 1) ^ sign) - sign
        return {**of, "value": value, "place": of["place"] if of["placed"] else NO_PLACE}

    def waiting_of(self, count: int, keys: int, demanded: int) -> list[tuple[int, bool]]:
        """The queue that the circuit showed, as ``waiting``."""
        key = key_layout(self.shape)
        words = [keys >> at * key.size & ((1 << key.size) - 1) for at in range(count)]
        return [(self._key(_fields(key, word)), bool(demanded >> at & 1)) for at, word in enumerate(words)]

    def counters_of(self, word: int) -> dict[str, int]:
        """The counters that the circuit showed."""
        return _fields(counters_layout(), word)

    def key_word(self, key: int) -> int:
        """A key as the circuit's struct."""
        layer, expert = self.split(key)
        return _packed(key_layout(self.shape), {"layer": layer, "expert": expert})

    def entry(self, key: int) -> dict[str, Any]:
        """What the twin knows of ``key``."""
        of = self.twin.directory
        deadline = int(of.deadline[key])
        return {
            "status": int(of.status[key]),
            "placed": int(of.place[key] != NO_PLACE),
            "place": int(of.place[key]),
            "pins": int(of.pins[key]),
            "fixed": int(of.fixed[key]),
            "unused": int(key in self.twin._unused),
            "chance": int(of.chance[key]),
            "deadline": 1 << self.used.deadline_bits if deadline == FOREVER else deadline + 1,
            "last": int(of.last[key]),
            "value": int(of.value[key]),
        }

    @property
    def waiting(self) -> list[tuple[int, bool]]:
        """The twin's queue: keys, and whether a gate waits for them."""
        queue = self.twin.queue
        return [(key, key in queue.demanded) for key in queue.waiting]

    @property
    def counters(self) -> dict[str, int]:
        """The twin's."""
        return {name: getattr(self.twin.counters, name) for name in COUNTERS}

    def split(self, key: int) -> tuple[int, int]:
        """Layer and expert of a key's number."""
        return divmod(key, self.used.experts)

    def _told(self, command: str, arguments: tuple[Any, ...]) -> Step:
        if command == "demand_residents":
            return self.twin.demand(*arguments, resident_only=True)
        if command == "unfix":
            return self.twin.fix(*arguments, fixed=False)
        step: Step = getattr(self.twin, command)(*arguments)
        return step

    def _payload(self, command: str, arguments: tuple[Any, ...]) -> int:
        told: dict[str, Any] = {"kind": COMMANDS[command].value, "option": command in ("demand_residents", "fix")}
        if command == "expire":
            told["deadline"] = self._deadline(*arguments)
        elif command not in ("grant", "preempt", "arrive", "fail"):
            told["layer"] = arguments[0]
            if command != "set_values":
                told |= {"count": len(arguments[1]), "experts": arguments[1]}
            if command == "prefetch":
                told |= {"chances": arguments[2], "deadline": self._deadline(arguments[3])}
        return _packed(command_layout(self.shape), told)

    def _deadline(self, deadline: int) -> int:
        return (1 << self.used.deadline_bits) - 1 if deadline == FOREVER else deadline

    def _place(self, place: int) -> int:
        """As the circuit says it."""
        return self.shape.all_places if place == NO_PLACE else place

    def _key(self, key: dict[str, int]) -> int:
        return key["layer"] * self.used.experts + key["expert"]

    def _levels(self) -> int:
        queue, moving = self.twin.queue, self.twin.moving[0]
        levels = (queue.holds_demand, not queue.waiting, moving != NONE, moving in queue.demanded)
        return sum(level << at for at, level in enumerate(levels))


def clear_payload(shape: StagerShape) -> int:
    """The command that comes first."""
    return _packed(command_layout(shape), {"kind": Command.CLEAR.value})  # type: ignore[attr-defined]


def _packed(layout: Any, values: dict[str, Any]) -> int:
    """Integers, and lists of them, by the layout; what is not given is 0."""
    word = 0
    for name, value in values.items():
        of = layout[name]
        if isinstance(value, (list, tuple)):
            width = of.shape.elem_shape.width
            for at, element in enumerate(value):
                word |= int(element) << (of.offset + at * width)
        else:
            word |= int(value) << of.offset
    return word


def _fields(layout: Any, word: int) -> dict[str, Any]:
    """Integers by name, of structs in structs too."""
    found: dict[str, Any] = {}
    for name, of in layout:
        bits = word >> of.offset & ((1 << of.width) - 1)
        found[name] = _fields(of.shape, bits) if isinstance(of.shape, type(layout)) else bits
    return found
