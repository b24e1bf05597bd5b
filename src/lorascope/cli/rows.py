"""``lorascope rows``: show rows as a study would train on them."""

from statistics import median
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.text import Text

from lorascope.cli.flags import STUDY
from lorascope.cli.gc_pause import pause_gc
from lorascope.cli.program_output import program_output
from lorascope.cli.run import StudyFlags, read_study
from lorascope.text.numbers import format_count
from lorascope.text.say import say
from lorascope.text.shown_rows import heading, in_brackets, marked_pieces

if TYPE_CHECKING:
    from lorascope.cli.outputs import RowsOutput
    from lorascope.data.dataset import Splits
    from lorascope.records import ShownRow
    from lorascope.spec.schema import StudySpec


def rows(
    study: str | None = None,
    /,
    *,
    show: Annotated[int, Parameter(validator=Number(gte=0), group=STUDY)] = 3,
    json: Annotated[bool, Parameter(negative="", show_default=False, group=STUDY)] = False,
    flags: Annotated[StudyFlags | None, Parameter(name="*")] = None,
) -> int:
    """Show rows with the targets that a study would train on, and what was dropped; loads no weights.

    Parameters
    ----------
    study
        A study file (YAML), a preset, or the folder of a study. Flags override it. Without it, --model and --dataset,
        or else the preset demo.
    show
        Training rows to print, their targets highlighted in a terminal and in [[ ]] elsewhere.
    json
        Write one JSON object.
    """
    _, spec = read_study(study, flags)
    with pause_gc():
        from lorascope.data.prepare import prepare
        from lorascope.data.shown_rows import shown_rows
        from lorascope.measure.environment import usable_cores
        from lorascope.modeling.end_tokens import end_token_ids
        from lorascope.modeling.load import load_tokenizer
        from lorascope.modeling.meta_model import locate_configuration

    with program_output(alone=json) as out:
        source, gguf_file = locate_configuration(spec.model, trust_remote_code=spec.trust_remote_code)
        tokenizer = load_tokenizer(source, gguf_file)
        splits = prepare(spec, tokenizer, end_ids=end_token_ids(source), processes=usable_cores())
        shown = shown_rows(splits.train[:show], tokenizer)
        if json:
            print(_output(spec, splits, shown).model_dump_json(indent=2), file=out)
        else:
            _print_rows(Console(), spec, splits, shown)
    return 0


def _output(spec: "StudySpec", splits: "Splits", shown: "tuple[ShownRow, ...]") -> "RowsOutput":
    from lorascope.cli.outputs import RowPart, RowsOutput

    return RowsOutput(
        format=splits.format,
        train_examples=len(splits.train),
        eval_examples=len(splits.eval),
        median_tokens=float(median(splits.lengths)),
        longest_tokens=int(splits.lengths.max()),
        cut_share=float((splits.lengths > spec.max_length).mean()),
        max_length=spec.max_length,
        notes=tuple(say(note) for note in splits.notes),
        shown=tuple(RowPart(row=r.row, tokens=r.tokens, targets=r.targets, pieces=r.pieces) for r in shown),
    )


def _print_rows(console: Console, spec: "StudySpec", splits: "Splits", shown: "tuple[ShownRow, ...]") -> None:
    lengths = splits.lengths
    cut = float((lengths > spec.max_length).mean())
    facts = (
        f"Format {splits.format}: {format_count(len(splits.train))} rows to train on, "
        f"{format_count(len(splits.eval))} held out.\n"
        f"Tokens of a row: median {float(median(lengths)):g}, longest {int(lengths.max()):,}; "
        f"{cut:.0%} are cut at max_length {spec.max_length:,}."
    )
    console.print(Text(facts), soft_wrap=True)
    for note in splits.notes:
        console.print(Text(f"note: {say(note)}"), soft_wrap=True)
    for row in shown:
        console.print()
        console.print(Text(heading(row), style="bold"))
        # rows are copied, so they must not be broken into lines
        console.print(_marked(row) if console.is_terminal else Text(in_brackets(row)), soft_wrap=True)


def _marked(row: "ShownRow") -> Text:
    return Text.assemble(*((piece, "reverse green" if is_target else "") for piece, is_target in marked_pieces(row)))
