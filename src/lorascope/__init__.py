"""lorascope: which LoRA rank should I use, and what does it cost me?"""

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lorascope.api import audit, plan, run
    from lorascope.report.study import Study

__all__ = ["Study", "__version__", "audit", "plan", "run"]
__version__ = "0.2.0"

# OpenMP reads it when Torch is loaded. Where another process has one of the cores, threads that wait by spinning keep
# it from the thread they wait for: docs/decisions/2026-12-01-threads-that-wait-sleep-soon.md.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")


def __getattr__(name: str) -> object:
    """Import a public name when it is first used, so that ``import lorascope`` costs nothing."""
    if name == "Study":
        from lorascope.report.study import Study

        return Study
    if name in {"audit", "plan"}:
        from lorascope import api

        return getattr(api, name)
    if name == "run":
        return importlib.import_module("lorascope.run")  # a package that can be called
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
