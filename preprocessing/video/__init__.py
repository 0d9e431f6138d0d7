"""Video files: list them, read their containers, probe and decode them with ffmpeg, and write H.264 files.

May import lgd.pipeline and nothing else of this project.
"""
