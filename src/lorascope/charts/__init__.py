"""Charts in three pure steps: data, Vega-Lite specification, picture.

A specification is a plain dictionary, as Vega-Lite documents it: a page takes it as JSON, ``render`` draws it, and
Altair reads it (``Study.charts``). Nothing is imported here: only ``render`` takes long to import.
"""
