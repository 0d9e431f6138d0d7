"""Training and scoring on several splits of one dataset: the official splits of UCF101 and HMDB51, cross-validation,
and the mean over splits.

Above all other parts of `lgd.training`, none of which imports it.
"""
