"""Benchmarks for contributors, run from a checkout: scaling, recovery, index and ablation. They are not in the wheel.

They may import every other folder; nothing outside this folder and its tests may import them.
"""
