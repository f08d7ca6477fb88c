"""The PIM expert unit of one pseudo-channel."""
