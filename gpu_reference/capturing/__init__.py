"""Record the routing of a local model while it generates."""
