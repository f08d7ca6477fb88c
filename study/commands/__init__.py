"""One module a command group of the forestage command."""
