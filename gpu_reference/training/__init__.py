"""Train the shipped model: its corpus, windows, loop and card."""
