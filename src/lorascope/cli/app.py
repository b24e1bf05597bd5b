"""Program entry point: the commands, and errors as messages and exit codes."""

import io
import logging
import os
import sqlite3
import sys
from collections.abc import Sequence
from typing import Any

from cyclopts import App, CycloptsError

from lorascope import __version__
from lorascope.cli.help import ALL, SHORTENED, STUDY_HELP, epilogue
from lorascope.errors import InputError, Interrupted, LorascopeError

app = App(
    name="lorascope",
    help="Which LoRA rank should I use, and what does it cost me?",
    version=__version__,
    help_format="plaintext",
    suppress_keyboard_interrupt=False,
)
# Named by path so that `lorascope --help` imports none of them; a test keeps the summaries equal to the docstrings.
for position, (name, summary) in enumerate(
    {
        "run": "Fine-tune every rank on the same data over one frozen model, compare them, and keep each adapter.",
        "plan": "Predict parameters, memory and time of every rank from the model's configuration; loads no weights.",
        "rows": "Show rows with the targets that a study would train on, and what was dropped; loads no weights.",
        "report": "Write the report, its Markdown and summary.json from a study's records, and print the path.",
        "serve": "Show a study in the browser while it runs and afterwards, or all studies of a folder.",
        "export": "Copy the adapter of one rank in PEFT's format, or the model with the adapter merged in.",
        "push": "Upload the adapter of one rank to the Hugging Face hub, with a model card and the study's report.",
        "audit": "Say how much of a LoRA adapter's rank is used, on held-out rows; or write it truncated.",
        "skill": "Print the instructions that coding agents follow to answer which rank to use, or install them.",
        "doctor": "Say whether this machine is ready for a study, how long the demo takes, or what to mend.",
    }.items()
):
    more: dict[str, Any] = {"help_formatter": STUDY_HELP, "help_epilogue": epilogue(name)} if name in SHORTENED else {}
    app.command(f"lorascope.cli.{name}:{name}", name=name, help=summary, sort_key=position, **more)


_NOISY = ("torchao", "torch.utils._pytree")
"""Loggers that warn of nothing that a user can mend, as soon as Transformers imports an installed torchao."""
_DISK_REMEDY = "free space or permissions, then run the same command: what was written is kept"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the program and exit: 0 done, 1 a trial failed, 2 bad input, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(
                errors="replace"
            )  # an encoding without a character gets a question mark, not a traceback
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)
    sys.exit(_run(list(sys.argv[1:] if arguments is None else arguments)))


def _run(arguments: list[str]) -> int:
    STUDY_HELP.everything = ALL in arguments
    arguments = ["--help" if argument == ALL else argument for argument in arguments]
    try:
        result = app(arguments, exit_on_error=False, result_action="return_value")
        sys.stdout.flush()
    except CycloptsError:
        # cyclopts has printed its message already
        return InputError.exit_code
    except (KeyboardInterrupt, Interrupted):
        print("lorascope: stopped; run the same command to continue", file=sys.stderr)  # noqa: T201
        return Interrupted.exit_code
    except LorascopeError as error:
        print(f"lorascope: {_without_secrets(error)}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except BrokenPipeError:
        # the reader of the pipe is gone; Python would report that again when it closes standard output
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, sqlite3.Error) as error:
        print(f"lorascope: {_without_secrets(error)}\n  -> {_DISK_REMEDY}", file=sys.stderr)  # noqa: T201
        return LorascopeError.exit_code
    return result if isinstance(result, int) else 0


def _without_secrets(error: Exception) -> str:
    from lorascope.measure.environment import mask_credentials

    return mask_credentials(str(error))
