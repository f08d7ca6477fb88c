"""How a command that was interrupted ends."""

INTERRUPTED = 130
"""The exit status: 128 and the number of SIGINT, as shells have it."""
