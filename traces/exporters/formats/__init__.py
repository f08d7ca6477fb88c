"""One module a format: what it can say, and how it is written."""
