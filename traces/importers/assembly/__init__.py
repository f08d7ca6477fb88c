"""What the formats share: opening files, identifying the model, and putting rows together into a trace or loads."""
