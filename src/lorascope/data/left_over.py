"""Further held-out rows of a sequential study: those that a slice of a split leaves over."""

import numpy as np
from datasets import ReadInstruction

from lorascope.data.dataset import Examples
from lorascope.data.encoded import EncodedRows, Encoder, join_encoded
from lorascope.data.halves import Halves, rows_outside
from lorascope.data.processes import encode_rows
from lorascope.data.row_order import shuffled
from lorascope.data.sources.load import DEFAULT_CONFIG, load_rows
from lorascope.data.sources.rows import Rows
from lorascope.data.split import LARGEST_POOL
from lorascope.errors import InputError
from lorascope.message import Message
from lorascope.spec.schema import StudySpec


def load_left_over(spec: StudySpec) -> Rows | None:
    """Return the rows that a slice such as ``train[:50%]`` leaves over.

    None where the study holds out no further rows, names a split of held-out rows, takes other than one slice of one
    data set, or leaves none over.
    """
    split = spec.for_each(spec.split)[0]
    name, bracket, _ = split.partition("[")
    several = len(spec.dataset_names) > 1 or "+" in split
    if not spec.until_decided or several or not bracket or spec.eval_split or spec.max_rows or spec.streaming:
        return None
    config = spec.for_each(spec.dataset_config or DEFAULT_CONFIG)[0]
    whole = load_rows(spec.dataset_names[0], name, config)
    (part,) = ReadInstruction.from_spec(split).to_absolute({name: len(whole)})
    outside = np.ones(len(whole), dtype=bool)
    outside[part.from_ : part.to] = False
    return whole.select(np.flatnonzero(outside)) if outside.any() else None


def further_rows(
    spec: StudySpec, left: Rows, encoder: Encoder, rows: EncodedRows, halves: Halves
) -> tuple[Examples, tuple[Message, ...]]:
    """Encode as many rows of those left over as the study may evaluate beyond its own, and note how many there are.

    Rows are drawn by ``split_seed`` from all that are left over; copies of the study's rows are left out, and more rows
    are drawn for them.

    Args:
        spec: the study.
        left: rows outside of its slice.
        encoder: of its rows.
        rows: the study's own, encoded.
        halves: their halves.
    """
    split, wanted = spec.for_each(spec.split)[0], LARGEST_POOL - len(halves.held)
    order = shuffled(len(left), seed=(spec.split_seed,))
    drawn, found, kept = 0, join_encoded(()), np.empty(0, np.int64)
    try:
        while len(kept) < wanted and drawn < len(left):
            chosen = np.sort(order[drawn : drawn + max(drawn, wanted)])
            more = encode_rows(encoder, left.select(chosen), processes=1, tell=None)
            found, drawn = join_encoded((found, more)), drawn + len(chosen)
            kept = rows_outside(rows, found, halves.key)
    except InputError as error:
        return Examples.of(()), (Message("rows.left_over_unusable", split=split, problem=error.problem),)
    further = kept[shuffled(len(kept), seed=(spec.split_seed,))[: max(0, wanted)]]
    note = Message("rows.left_over", split=split, size=len(left), count=len(further))
    copies = len(found) - len(kept)
    notes = (note, Message("rows.left_over_copies", count=copies)) if copies else (note,)
    return Examples.of_columns(found.tokens, found.lengths).take(further), notes
