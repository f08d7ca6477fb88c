"""Policies: what gives way, what is fetched ahead, and what becomes of an expert that is missing.

A simulation of time (`perfmodel`) and the runtime on a device (`gpu_reference`) take the same policies from here.
"""
