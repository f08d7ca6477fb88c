"""The engine that moves experts' bytes, and the link that says which."""
