"""The unit's registers in the bench: what is written for a job, and what must be read after it."""

TOP = "pim_unit"
