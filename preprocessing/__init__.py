"""Preprocessing: create a dataset of shards from videos and annotations.

Reads annotations into a manifest, plans the shards, and writes them in Ray tasks with ffmpeg and TV-L1. May import
lgd.pipeline and nothing else of this project.
"""
