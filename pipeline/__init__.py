"""A dataset of shards -> batches on the device: index, clip order, byte reads, DALI."""
