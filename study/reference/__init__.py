"""A measurement record beside the system model: constants from its micro-measurements, rows predicted with them."""
