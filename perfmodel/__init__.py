"""The whole system: costs, the event engine, and one policy a system."""
