"""Analysis of a study's records into one frozen StudySummary."""

from lorascope.analysis.study_data import StudyData, load_study
from lorascope.analysis.summarize import summarize, summarize_data
from lorascope.analysis.summary import StudySummary

__all__ = ["StudyData", "StudySummary", "load_study", "summarize", "summarize_data"]
