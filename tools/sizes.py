"""Check the sizes of the package: lines of a file, lines of nine functions in ten, lines of all files."""

import ast
import sys
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "src" / "lorascope"
FILE_LINES = 350
FUNCTION_LINES = 25
SHORT_SHARE = 0.9
TOTAL_LINES = 20_500


def function_lines(source: str) -> dict[str, int]:
    """Return the lines of each function, from ``def`` to its end, by name and line number."""
    return {
        f"{node.name}, line {node.lineno}": (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def check(package: Path) -> list[str]:
    """Return a sentence for each rule that the package breaks."""
    sources = {path: path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py"))}
    lengths = {path.relative_to(package): len(source.splitlines()) for path, source in sources.items()}
    functions = {
        f"{path.relative_to(package)}: {name}": lines
        for path, source in sources.items()
        for name, lines in function_lines(source).items()
    }
    problems = [f"{path} has {n} lines, at most {FILE_LINES}" for path, n in lengths.items() if n > FILE_LINES]
    long = {name: lines for name, lines in functions.items() if lines >= FUNCTION_LINES}
    if len(long) > (1 - SHORT_SHARE) * len(functions):
        longest = sorted(long.items(), key=lambda item: -item[1])[:20]
        problems.append(
            f"{len(long)} of {len(functions)} functions have {FUNCTION_LINES} lines or more, at most one in ten:\n"
            + "\n".join(f"  {lines:4} {name}" for name, lines in longest)
        )
    total = sum(lengths.values())
    print(
        f"{total:,} lines in {len(lengths)} files (limit {TOTAL_LINES:,});"
        f" {len(long)} of {len(functions):,} functions have {FUNCTION_LINES} lines or more (limit one in ten)"
    )
    return problems


if __name__ == "__main__":
    found = check(PACKAGE)
    print("\n".join(found))
    sys.exit(bool(found))
