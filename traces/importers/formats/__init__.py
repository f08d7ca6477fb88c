"""One module per foreign format: how to recognise it, which options it uses, and how it is read."""
