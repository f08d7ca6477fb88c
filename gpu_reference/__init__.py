"""PyTorch: the shipped MoE, its training, trace capture and replay."""
