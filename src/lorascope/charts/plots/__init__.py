"""One file for each chart, or for charts that differ in one quantity: data, Vega-Lite specification, words.

Each module has ``charts(study, summary)``, which yields the charts that have something to show;
``lorascope.charts.registry`` lists the modules in the order of the report.
"""
