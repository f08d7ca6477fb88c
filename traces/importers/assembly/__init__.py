"""What the formats share: opening files, naming the model, and putting rows together into a trace or loads."""
