"""Proofs of the circuits' own checks (``rtl.checks``): by k-induction where it converges, else up to a depth."""
