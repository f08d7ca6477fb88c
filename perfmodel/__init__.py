"""The whole system: costs, the event loop, and one policy per published system."""
