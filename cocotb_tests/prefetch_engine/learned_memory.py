"""What lies in far memory for the learned predictor: images of the heads, rows of identity, room for texts."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from predictor.engine.limits import BEAT_BYTES, PrefetchEngineLimits
from predictor.engine.settings import PrefetchEngineSettings
from predictor.row_network.image import write_image
from predictor.row_network.text_traffic import TextSettings
from predictor.row_network.twin import RowNetwork
from staging.transfer.limits import PAGE_BYTES

HEADS = ("next-layer", "next-use")
SPOILED = 1 << 27
"""Where tests put a copy of the first section whose last bit is another."""


@dataclass(frozen=True)
class LearnedMemory:
    """Contents of the memory, and where things lie in it.

    Attributes:
        words: by address of the first byte, whole beats.
        sections: addresses of what is loaded, in the order of loading.
        text: the registers' settings.
    """

    words: Mapping[int, bytes]
    sections: tuple[int, ...]
    text: TextSettings


def learned_memory(
    limits: PrefetchEngineLimits, settings: PrefetchEngineSettings, networks: Mapping[str, RowNetwork]
) -> LearnedMemory:
    """The memory of an engine that asks these ``networks``, by head.

    Raises:
        ForestageError: if the hardware has no room for a network, or two cannot share the memory of the text.
    """
    words: dict[int, bytes] = {}
    end = 0
    sections: list[int] = []
    identity_base = identity_stride = 0

    def place(data: bytes) -> int:
        nonlocal end
        begin = -(-end // PAGE_BYTES) * PAGE_BYTES
        padded = data.ljust(-(-len(data) // BEAT_BYTES) * BEAT_BYTES, b"\0")
        words.update({begin + at: padded[at : at + BEAT_BYTES] for at in range(0, len(padded), BEAT_BYTES)})
        end = begin + len(padded)
        return begin

    with tempfile.TemporaryDirectory() as folder:
        for head in HEADS:
            if (network := networks.get(head)) is None:
                continue
            path = Path(folder) / head
            manifest = write_image(network, path, head=head, model="bench", lanes=limits.net.lanes)
            data = path.read_bytes()
            distance = settings.distance if head == "next-layer" else 0
            for section in manifest.sections:
                if section.distance in (None, distance):
                    sections.append(place(data[section.offset : section.offset + section.size]))
            rows = len(network.tables.identity_rows)
            if network.config.identities and rows:
                size = rows * manifest.identity_stride
                identity_base = place(data[manifest.identity_offset : manifest.identity_offset + size])
                identity_stride = manifest.identity_stride
    text = TextSettings.of(
        [network.config for network in networks.values()],
        layers=settings.layers,
        experts=settings.experts,
        top_k=settings.top_k,
        lanes=limits.net.lanes,
        text_base=-(-end // PAGE_BYTES) * PAGE_BYTES,
        identity_base=identity_base,
        identity_stride=identity_stride,
    )
    return LearnedMemory(words, tuple(sections), text)
