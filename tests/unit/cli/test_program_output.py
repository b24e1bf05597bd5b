"""Standard output of a command with --json holds its JSON and nothing else."""

import subprocess
import sys

NOISY = """
import ctypes, os, subprocess, sys
from lorascope.cli.program_output import program_output

with program_output(alone={alone}) as out:
    print("of Python")
    os.write(1, b"of a descriptor\\n")
    ctypes.CDLL(None).puts(b"of a library in C")
    subprocess.run(["echo", "of another process"], check=True)
    print('{{"a": 1}}', file=out)
print("behind it")
"""
OTHERS = {"of Python", "of a descriptor", "of a library in C", "of another process"}


def written(*, alone: bool) -> tuple[list[str], list[str]]:
    code = NOISY.format(alone=alone)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.splitlines(), done.stderr.splitlines()


def test_json_is_alone_on_standard_output() -> None:
    out, err = written(alone=True)
    assert out == ['{"a": 1}', "behind it"]
    assert set(err) == OTHERS


def test_text_leaves_standard_output_as_it_is() -> None:
    out, err = written(alone=False)
    assert set(out) == OTHERS | {'{"a": 1}', "behind it"}
    assert err == []


def test_json_of_a_command_is_alone_although_a_child_writes_to_its_descriptor() -> None:
    code = (
        "import os, sys\nfrom lorascope.cli import main\nfrom lorascope.cli import doctor\n"
        "facts = doctor.machine_facts\n"
        "doctor.machine_facts = lambda: os.system('echo noise') or facts()\n"
        "main(['doctor', '--json'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("{\n")
    assert done.stderr == "noise\n"
