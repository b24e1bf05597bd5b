"""Per-user folders for cached and for learned data."""

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Return ``LORASCOPE_CACHE``, or lorascope's folder in the user's cache."""
    chosen = os.environ.get("LORASCOPE_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("lorascope", appauthor=False))


def data_folder() -> Path:
    """Return ``LORASCOPE_DATA``, or lorascope's folder in the user's data."""
    chosen = os.environ.get("LORASCOPE_DATA")
    return Path(chosen) if chosen else Path(platformdirs.user_data_dir("lorascope", appauthor=False))
