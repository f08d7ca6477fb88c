"""Published constants, each with its source, and the errors every package raises."""
