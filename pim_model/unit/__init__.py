"""The PIM expert unit of one pseudo-channel: what it is generated with, what it runs, and when it issues what."""
