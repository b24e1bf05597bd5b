"""Store the records of a study in one SQLite file: one writer, many readers, exact values."""

from lorascope.store.connection import verify_store
from lorascope.store.lock import FolderLock
from lorascope.store.study import StudyStore

__all__ = ["FolderLock", "StudyStore", "verify_store"]
