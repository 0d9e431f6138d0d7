"""What people look at in a dataset: its numbers, its verification, pictures, and index files for other readers.

Imports `pipeline.console`, `pipeline.storage`, `pipeline.dataset` and `pipeline.loading`; no other part of the pipeline
imports it."""
