"""`lgd predict`: classify a user's own video files with trained runs, without a dataset and without a cluster.

Temporary datasets made of the files, predictions of one or two runs for them, and videos with the predictions drawn
below. May import `lgd.pipeline`, `lgd.preprocessing` and `lgd.training`; only `lgd/cli.py`, `lgd/commands/` and
`lgd.benchmarks` may import this package.
"""
