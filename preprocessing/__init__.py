"""Videos and annotations -> a dataset of shards: Ray tasks, ffmpeg, TV-L1."""
