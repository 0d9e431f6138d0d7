"""Benchmarks: one module per claim. Each measures the project and what a user would choose instead, in turn.

`lgd bench` runs flow, loader, preprocess and train. `dev/` has benchmarks for contributors; it is not in the wheel, and
nothing outside it may import it. The benchmarks may import every other folder, including `lgd.clusters.testbed`.
"""
