"""Charts in three pure steps: data, Vega-Lite specification, rendered image.

A specification is a plain dictionary: a page takes it as JSON, ``render`` draws it, Altair reads it (``Study.charts``).
Nothing is imported here, as ``render`` takes long to import.
"""
