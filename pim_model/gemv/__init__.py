"""Matrix-vector products in memory: kernels, their clocks in closed form, bounds, and whole experts."""
