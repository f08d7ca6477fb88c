"""One module or package per group of the forestage command."""
