"""A decoder's fixed parts: everything but the routed experts, eager and as CUDA graphs."""

from gpu_reference.decoder.decoder import Decoder, GateInput

__all__ = ["Decoder", "GateInput"]
