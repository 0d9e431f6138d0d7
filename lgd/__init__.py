"""Two-stream video action recognition: preprocessing, training, fusion and prediction on a cluster.

`lgd.cli` is the command line, `lgd.commands` its commands. The other folders here are links to the top-level folders of
the repository and are imported as `lgd.pipeline`, `lgd.preprocessing`, `lgd.training`, `lgd.prediction`, `lgd.clusters`
and `lgd.benchmarks`.
"""

__version__ = "0.4.0"
