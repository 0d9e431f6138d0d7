"""Scores: the class probabilities that a trained run gives to the videos of a split, and the metrics of them.

The test protocol, scoring in one process and on a cluster, the score file, metrics and per-class tables. May import
`lgd.pipeline` and the modules of `lgd.training` that open a run and build its network; never `lgd.training.fusion` or
`lgd.training.report`, which read score files.
"""
