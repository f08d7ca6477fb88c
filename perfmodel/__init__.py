"""The whole system: costs, policies, and two engines that own time."""
