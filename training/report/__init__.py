"""One HTML file of what was trained on what, how it went and how good it is: `lgd report`.

inputs     what the user named: runs, scores, datasets
history    the curves of a run
results    scores of the same videos beside each other
examples   videos to look at
plots      curves and histograms as SVG
parts      what of scores the page shows
page       all of it as one file (template.html, style.css, script.js)
"""
