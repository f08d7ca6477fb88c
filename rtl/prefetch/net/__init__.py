"""The net: it runs the row networks of both heads."""
