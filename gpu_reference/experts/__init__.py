"""An expert's weights as one block of bytes: its shape, its formats, and what computes it."""
