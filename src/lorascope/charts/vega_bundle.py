"""The script that draws specifications in a browser."""

import contextlib
from functools import cache
from importlib.metadata import version

import vl_convert

from lorascope.atomic import write_whole
from lorascope.paths import cache_folder


@cache
def script() -> str:
    """Return the JavaScript that draws specifications in a browser (vegaEmbed, vegaLite, vega); it loads nothing.

    Putting it together takes seconds, so that it is kept in the cache folder, where that can be written.
    """
    kept = cache_folder() / f"vega-{version('vl-convert-python')}.js"
    with contextlib.suppress(OSError):
        return kept.read_text(encoding="utf-8")
    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # the stub knows no default
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_whole(kept, bundle, derived=True)
    return bundle
