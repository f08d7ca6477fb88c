"""Activation-aware foresight after MoE-Infinity: what a sequence has used, and which earlier one it resembles."""
