"""Run a study: prepare, train, measure and examine, and keep everything where a kill loses nothing.

The package is called as well: ``lorascope.run(model=..., train_dataset=..., ranks=[8, 64])`` is ``lorascope.api.run``.
"""

import sys
from types import ModuleType
from typing import Any


class _CalledPackage(ModuleType):
    def __call__(self, *args: Any, **fields: Any) -> object:  # noqa: ANN401 - those of lorascope.api.run
        from lorascope import api  # noqa: PLC0415 - it imports this package

        return api.run(*args, **fields)


sys.modules[__name__].__class__ = _CalledPackage
