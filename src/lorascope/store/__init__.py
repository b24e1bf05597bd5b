"""The study's records on disk: one SQLite file, one writer, exact values back."""

from lorascope.store.connection import verify_store
from lorascope.store.lock import FolderLock
from lorascope.store.study import StudyStore

__all__ = ["FolderLock", "StudyStore", "verify_store"]
