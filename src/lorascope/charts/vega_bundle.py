"""JavaScript bundle of Vega for browsers."""

import contextlib
from functools import cache
from importlib.metadata import version

import vl_convert

from lorascope.atomic import write_whole
from lorascope.paths import cache_folder


@cache
def vega_script() -> str:
    """Return a script with vegaEmbed, vegaLite and vega, which loads nothing from the network.

    Bundling takes seconds, so the script is cached on disk where the cache folder is writable.
    """
    kept = cache_folder() / f"vega-{version('vl-convert-python')}.js"
    with contextlib.suppress(OSError):
        return kept.read_text(encoding="utf-8")
    bundle: str = vl_convert.javascript_bundle()  # type: ignore[call-arg]  # the stub knows no default
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_whole(kept, bundle, derived=True)
    return bundle
