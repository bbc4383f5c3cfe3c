"""Benchmarks: each asserts its answers, and runs its peer beside it.

``make bench`` runs them and prints the table (``benchmarks.report``); ``pytest benchmarks`` runs them alone.
"""
