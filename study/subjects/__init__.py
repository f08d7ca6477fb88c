"""What a study is about: each subject computes its figures from the trace and shows them in the report."""
