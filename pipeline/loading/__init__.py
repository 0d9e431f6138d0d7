"""From a dataset to batches on a device: clip order, byte reads, the DALI graph, and the loaders that join them.

Imports `pipeline.console`, `pipeline.storage` and `pipeline.dataset`, never `pipeline.inspection`."""
