"""The folder for what is made once for a machine and can be made again."""

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Return ``LORASCOPE_CACHE``, or lorascope's folder in the user's cache."""
    chosen = os.environ.get("LORASCOPE_CACHE")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("lorascope", appauthor=False))
