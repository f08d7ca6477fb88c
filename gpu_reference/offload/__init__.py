"""Experts that lie in host memory and come to the device when the stager says so; outputs do not depend on it."""
