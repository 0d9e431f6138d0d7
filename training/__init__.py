"""Training: batches become checkpoints, scores, fused scores and reports.

The modules here train a run: recipes and run folders, the training loop, checkpoints and metrics, and Ray Train around
them. `models` holds the networks, `steps` a training step, `scoring` evaluates runs, `fusion` fuses score files,
`report` writes HTML reports, `transfer` runs several trainings.
May import `lgd.pipeline`, and nothing of preprocessing, prediction, clusters or benchmarks."""
