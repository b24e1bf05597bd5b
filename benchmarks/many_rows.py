"""Seconds and memory to prepare many rows: made up, tokenised in processes, split and hashed.

Memory is that of this process and of those that tokenise, sampled, above what the process holds before it begins. Pages
that processes share count for each of them.
"""

import argparse
import json
import os
import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from lorascope.data.prepare import prepare
from lorascope.measure.environment import usable_cores
from lorascope.modeling.load import load_tokenizer, locate_model
from lorascope.spec.schema import StudySpec

WORDS = ("river", "engine", "paper", "winter", "number", "garden", "signal", "market", "letter", "planet")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def made_up_rows(count: int, kind: str) -> Iterator[dict[str, object]]:
    """Make rows of about 60 tokens, all different; one in a hundred is a near copy of the row before it."""
    for number in range(count):
        first, second = WORDS[number % 10], WORDS[number // 10 % 10]
        ask = f"Explain in one sentence how the {first} of case {number} relates to the {second}."
        if number % 100 == 99:
            before = number - 1
            ask = f"Explain in one sentence how the {WORDS[before % 10]} of case {before}  relates to the {second}.\n"
        answer = f"In case {number} the {first} comes before the {second}, because it was there when the work began."
        if kind == "alpaca":
            yield {"instruction": ask, "input": "" if number % 3 else f"note {number}", "output": answer}
        else:
            turns = (("user", ask), ("assistant", answer))
            yield {"messages": [{"role": role, "content": content} for role, content in turns]}


class PeakMemory(threading.Thread):
    """Samples the resident memory of this process and its children."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.process = psutil.Process()
        self.before = self.process.memory_info().rss
        self.peak = self.own_peak = self.before
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.2):
            own, total = self.process.memory_info().rss, 0
            for child in self.process.children(recursive=True):
                try:
                    total += child.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.own_peak, self.peak = max(self.own_peak, own), max(self.peak, own + total)


def processor_seconds() -> float:
    """Return the seconds that this process and its ended children computed."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def measure(path: Path, model: str, processes: int) -> dict[str, float]:
    """Prepare the rows of a file, with an empty cache, and again with a filled one."""
    tokenizer = load_tokenizer(locate_model(model, trust_remote_code=False))
    tokenizer.chat_template = tokenizer.chat_template or CHAT_TEMPLATE
    spec = StudySpec(model=model, dataset=str(path))
    found: dict[str, float] = {}
    for name in ("cold", "cached"):
        memory = PeakMemory()
        memory.start()
        begun, used = time.perf_counter(), processor_seconds()
        splits = prepare(spec, tokenizer, processes=processes)
        found[f"{name}_seconds"] = time.perf_counter() - begun
        memory.done.set()
        memory.join()
        time.sleep(2)  # processes count when they have ended
        found[f"{name}_processor_seconds"] = processor_seconds() - used
        found[f"{name}_peak_bytes_above"] = memory.peak - memory.before
        found[f"{name}_own_bytes_above"] = memory.own_peak - memory.before
        found["before_bytes"] = memory.before
        found["rows"] = len(splits.train) + len(splits.eval)
        found["tokens_per_row"] = float(splits.train.n_tokens.mean())
        print(name, *splits.notes)
        del splits
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--kind", choices=("alpaca", "messages"), default="alpaca")
    parser.add_argument("--suffix", choices=(".json", ".jsonl"), default=".jsonl")
    parser.add_argument("--model", default="builtin:smollm2-135m")
    parser.add_argument("--processes", type=int, default=usable_cores())
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LORASCOPE_CACHE"] = folder
        path = Path(folder, f"rows{given.suffix}")
        with path.open("w", encoding="utf-8") as file:
            lines = (json.dumps(row) for row in made_up_rows(given.rows, given.kind))
            start, between, end = ("[", ",\n", "]") if given.suffix == ".json" else ("", "\n", "\n")
            file.write(start + next(lines))
            for line in lines:
                file.write(between + line)
            file.write(end)
        size = path.stat().st_size
        loads = psutil.getloadavg()
        found = measure(path, given.model, given.processes)
    print(json.dumps({"file_bytes": size, "processes": given.processes, "load_before": loads, **found}, indent=1))


if __name__ == "__main__":
    main()
