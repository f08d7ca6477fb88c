"""Loading the memories of the net, and its commands, for tests."""

from typing import Any

from predictor.row_network.limits import HeadLimits, NetLimits
from predictor.row_network.program import Contents, HeadProgram, Memory
from predictor.row_network.sum_cycles import Pass
from rtl.prefetch.net.layouts import SumsKind

SMALL_HEAD = {"hidden": 8, "row_words": 1200, "operations": 32, "previous": 2, "decays": 3, "matched": 8}


def small_limits(**values: Any) -> NetLimits:
    """A net of few lanes, whose heads are wider than a word."""
    heads = {"next_layer": HeadLimits(**SMALL_HEAD), "next_use": HeadLimits(**{**SMALL_HEAD, "questions": 2})}
    shape = {"slots": 2, "layers": 5, "experts": 9, "top_k": 4, "lanes": 8, "records": 8}
    return NetLimits(**{**shape, **heads, **values})


async def load(ctx: Any, port: Any, contents: dict[Memory, Contents], head: int, memories: tuple[Memory, ...]) -> None:
    """Put ``contents`` into some memories of a head, a part a clock."""
    ctx.set(port.valid, 1)
    ctx.set(port.head, head)
    for memory in memories:
        ctx.set(port.memory, memory)
        for address, word in enumerate(contents[memory].data):
            ctx.set(port.address, address)
            for part in range(-(-len(word) // 64)):
                ctx.set(port.part, part)
                ctx.set(port.data, int.from_bytes(word[64 * part : 64 * part + 64].tobytes(), "little"))
                await ctx.tick()
    ctx.set(port.valid, 0)


def passes_of(program: HeadProgram, head: int, command: dict[str, Any]) -> list[Pass]:
    """The passes of a command to the sums."""
    settings, slot, layer = program.settings, command["slot"], command.get("layer", 0)
    words = tuple(range(settings.words))

    def one(target: int, index: int = 0, *, fresh: bool = False, **fields: Any) -> Pass:
        turned = (index + command["turn"]) % settings.ring
        key = (head, slot, fresh, index if fresh else turned, target)
        return Pass(**{"sum_key": key, "words": words, **fields})

    kind = command["kind"]
    if kind in (SumsKind.ASK, SumsKind.REST):
        operations = program.gates[layer][:1] if kind == SumsKind.ASK else program.gates[layer][1:]
        return [
            one(
                operation.target,
                operation.index,
                fresh=operation.fresh,
                rows=settings.top_k
                if operation.rows
                and (command["recorded"] or (command["held"] and (operation.fresh or operation.index > 0)))
                else 0,
                asks=kind == SumsKind.ASK,
                finishes=operation.finishes,
            )
            for operation in operations
        ]
    if kind == SumsKind.SHOW:
        return [one(layer, asks=True)]
    if kind == SumsKind.IDENTITY:
        return [one(layer, words=(command["word"],))]
    if kind == SumsKind.CLEAR:
        return [one(target) for target in range(settings.layers)]
    mask = program.records[command["index"]] if command["index"] < len(program.records) else 0
    return [one(layer, rows=settings.top_k)] * mask.bit_count()
