"""Bus models that nobody here wrote (the PyPI package ``cocotbext-axi``) on the hardware's ports."""
