"""A decoder's fixed parts: everything but the routed experts, eager and as CUDA graphs."""

from gpu_reference.decoder.decoder import Decoder, GateInput
from gpu_reference.decoder.fixed_part import fixed_part
from gpu_reference.decoder.graphs import GraphedDecoder

__all__ = ["Decoder", "GateInput", "GraphedDecoder", "fixed_part"]
