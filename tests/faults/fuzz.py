"""Feed broken input to everything that reads a file from outside.

    python tests/faults/fuzz.py [--inputs 100000] [--seed 0]      random changes of good and bad files
    python tests/faults/fuzz.py --atheris TARGET [--inputs N]     changes that libFuzzer finds to reach new code

An input may be read or refused with a message. Exit code 1 where one ends in another error, takes over 10 seconds, or
leaves the process above 1 GB beyond where it began.
"""

import argparse
import random
import sys
import time
import traceback
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1])]

import psutil

if "--atheris" in sys.argv:
    import atheris

    with atheris.instrument_imports(include=["lorascope", "faults.targets"]):
        from faults.targets import TARGETS, Target
else:
    from faults.targets import TARGETS, Target

MOST_SECONDS, MOST_BYTES = 10.0, 10**9
SIGNS = b"\x00\xff\"'{}[]\n,|!&*-#"
PIECES = (*(bytes([sign]) for sign in SIGNS), b"\xed\xa0\x80", b"\xe2\x80\xa8", b"\\u", b": ", b"&a ", b"*a",
          b"1e999", b"-1", b"null", b"NaN", b"9" * 30, b"__class__", b"a" * 300)  # fmt: skip


def changed(data: bytes, chance: random.Random) -> bytes:
    """Change some bytes, or repeat, remove or insert a piece."""
    out = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(len(out) + 1)
        length = chance.choice((1, 4, 16, 64))
        match chance.randrange(6):
            case 0 if at < len(out):
                out[at] ^= 1 << chance.randrange(8)
            case 1:
                out[at : at + length] = chance.randbytes(length)
            case 2:
                del out[at : at + length]
            case 3:
                out[at:at] = out[at : at + length] * chance.choice((1, 2, 50))
            case 4:
                out[at:at] = chance.choice(PIECES)
            case _:
                del out[at:]
        if not out:
            break
    return bytes(out[:200_000])


def attack(name: str, target: Target, inputs: int, seed: int) -> int:
    """Return how many inputs did harm."""
    chance, process = random.Random(f"{name} {seed}"), psutil.Process()
    base, slowest, harmful = process.memory_info().rss, 0.0, 0
    pool, began = list(target.seeds), time.perf_counter()
    for number in range(inputs):
        data = pool[number] if number < len(pool) else changed(chance.choice(pool), chance)
        if chance.random() < 0.02 and len(pool) < 500:
            pool.append(data)
        start = time.perf_counter()
        try:
            target.read(data)
        except Exception:
            harmful += 1
            print(f"{name}: {data[:200]!r} ({len(data)} bytes)\n{traceback.format_exc()}", file=sys.stderr)
        slowest = max(slowest, time.perf_counter() - start)
    more = process.memory_info().rss - base
    harmful += (slowest > MOST_SECONDS) + (more > MOST_BYTES)
    seconds = time.perf_counter() - began
    print(f"| {name} | {inputs} | {harmful} | {slowest:.2f} | {more / 1e6:.0f} | {seconds:.0f} |", flush=True)
    return harmful


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--atheris", choices=list(TARGETS))
    options = parser.parse_args()
    if options.atheris:
        arguments = [sys.argv[0], f"-atheris_runs={options.inputs}", "-timeout=10", "-rss_limit_mb=4000"]
        atheris.Setup(arguments, TARGETS[options.atheris].read)
        atheris.Fuzz()
    print(
        "| what is read | inputs | errors | slowest, s | more memory, MB | s |\n| --- | --- | --- | --- | --- | --- |"
    )
    each = options.inputs // len(TARGETS)
    sys.exit(sum(attack(name, target, each, options.seed) for name, target in TARGETS.items()) > 0)


if __name__ == "__main__":
    main()
