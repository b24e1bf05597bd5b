"""The micro-batch that is going through the model.

Layers read it from a context variable, because Transformers' models do not hand unknown arguments to every layer.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from lorascope.modeling.adapters.dropout import DropoutStreams
from lorascope.modeling.backends.protocol import Backend
from lorascope.modeling.packing.packed_layout import MicroBatchLayout


@dataclass(frozen=True, kw_only=True, slots=True)
class ActiveMicroBatch:
    """A micro-batch on its way through the model."""

    layout: MicroBatchLayout
    backend: Backend
    streams: DropoutStreams | None = None
    """Random bits of its spans' dropout; None: no dropout."""
    checks_masks: bool = False
    """True: the model is asked for its masks, which are compared with what packed attention computes."""
    check_stop: Callable[[], None] = lambda: None
    """Raises when the run should stop; called in every adapted layer, as a micro-batch may take seconds."""


_active: ContextVar[ActiveMicroBatch | None] = ContextVar("lorascope_active_microbatch", default=None)


@contextmanager
def active_microbatch(current: ActiveMicroBatch) -> Iterator[None]:
    """Make a micro-batch the current one for the layers inside the ``with`` block."""
    token = _active.set(current)
    try:
        yield
    finally:
        _active.reset(token)


def current_microbatch() -> ActiveMicroBatch | None:
    """Return the micro-batch that is going through the model, or None outside of one."""
    return _active.get()
