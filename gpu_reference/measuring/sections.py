"""The sections of both suites, the most important first: where the time is short, the last ones are left out."""

from gpu_reference.measuring.bench import SectionPlan
from gpu_reference.measuring.copies import copies, copies_on_streams, copies_within_device
from gpu_reference.measuring.launches import gate_round_trips, graph_replays, launches

SECTIONS = (
    SectionPlan("copies", copies),
    SectionPlan("launches", launches),
    SectionPlan("gate round trips", gate_round_trips),
    SectionPlan("copies within the device", copies_within_device),
    SectionPlan("copies on several streams", copies_on_streams),
    SectionPlan("graph replays", graph_replays),
)
