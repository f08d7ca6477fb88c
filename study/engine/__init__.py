"""The whole prefetch engine beside what else is known of it: the system model, and a machine's times."""
