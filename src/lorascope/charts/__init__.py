"""Charts in three pure steps: data, Vega-Lite spec, picture.

Nothing is imported here: ``colors`` and ``data`` are light; ``specs`` and ``render`` bring Altair, which takes longer
to import than all else that reads a study.
"""
