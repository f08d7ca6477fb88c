"""The sections of both suites, the most important first: where the time is short, the last ones are left out."""

from gpu_reference.measuring.bench import SectionPlan
from gpu_reference.measuring.copies import copies, copies_on_streams, copies_within_device
from gpu_reference.measuring.decisions import decisions
from gpu_reference.measuring.decoding import decode_sections
from gpu_reference.measuring.experts import combined, device_experts, graphed_experts, grouped_experts
from gpu_reference.measuring.fixed_parts import fixed_parts, output_matrix
from gpu_reference.measuring.host import host_experts, host_experts_while_copying, host_memory
from gpu_reference.measuring.launches import gate_round_trips, graph_replays, launches
from gpu_reference.measuring.layer_overhead import layer_overheads
from gpu_reference.measuring.networks import device_predictions, host_predictions
from gpu_reference.measuring.overlap import overlaps
from gpu_reference.measuring.points import SHOWN
from predictor.policies.material import Material

FIRST = (
    SectionPlan("copies", copies),
    SectionPlan("experts", device_experts),
    SectionPlan("fixed parts", fixed_parts),
    SectionPlan("launches", launches),
    SectionPlan("gate round trips", gate_round_trips),
    SectionPlan("host experts", host_experts),
    SectionPlan("host experts while copying", host_experts_while_copying),
    SectionPlan("host memory", host_memory),
    SectionPlan("layer overhead", layer_overheads),
    SectionPlan("output matrix", output_matrix),
    SectionPlan("decisions", decisions),
    SectionPlan("predictions on the host", host_predictions),
)
"""What a simulation of decoding needs."""

THEN = (
    SectionPlan("predictions on the device", device_predictions),
    SectionPlan("overlap", overlaps),
    SectionPlan("graphed experts", graphed_experts),
    SectionPlan("graph replays", graph_replays),
    SectionPlan("copies within the device", copies_within_device),
    SectionPlan("copies on several streams", copies_on_streams),
    SectionPlan("combining", combined),
    SectionPlan("grouped experts", grouped_experts),
)
"""What comes after the points of decoding that matter most."""


def sections_of(material: Material | None) -> tuple[SectionPlan, ...]:
    """All sections; ``material``: what is decoded, if anything is."""
    rows = decode_sections(material)
    return (*FIRST, *rows[: len(SHOWN)], *THEN, *rows[len(SHOWN) :])
