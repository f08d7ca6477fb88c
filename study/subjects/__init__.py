"""The subjects of a study: each computes its figures from the trace and shows them in the report."""
