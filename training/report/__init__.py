"""The report of `lgd report`: one HTML file with training curves, accuracies and example videos.

inputs           reads what the user names: runs, score files, datasets
history          training curves of a run, from its metrics
results          predictions for the same videos, joined by key and compared
examples         chooses example videos and draws their frames
dataset_summary  numbers that describe a dataset
plots            curves and histograms as SVG
sections         the part of the page about one group of scores
page             the complete page (template.html, style.css, script.js)

May import the training folder, its `models`, `scoring` and `fusion`, and `lgd.pipeline`.
"""
