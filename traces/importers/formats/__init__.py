"""One module a foreign format: how to tell it, what it uses of the options, and how it is read."""
