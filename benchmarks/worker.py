"""The measured process: ``python worker.py JOB ANSWER``, a job as JSON and the file to write the result to."""

import sys
from pathlib import Path

from jobs import Job


def main() -> None:
    job = Job.model_validate_json(sys.argv[1])
    if job.program.startswith("lorascope"):
        from engine_run import train_lorascope  # noqa: PLC0415 - a process loads the one program that it measures

        result = train_lorascope(job)
    else:
        from peer_run import train_peer  # noqa: PLC0415

        result = train_peer(job)
    Path(sys.argv[2]).write_text(result.model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    main()
