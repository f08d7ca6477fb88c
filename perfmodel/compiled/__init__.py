"""The system model compiled: `perfmodel.engine`, time for time and count for count, some hundred times as fast."""
