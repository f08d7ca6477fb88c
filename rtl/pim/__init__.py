"""The tile of the PIM expert unit."""
