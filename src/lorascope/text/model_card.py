"""The model card of an adapter: what it is, how it was trained and how it compares with the study's other ranks."""

from collections.abc import Iterator
from pathlib import Path

from lorascope.analysis.summary import RankSection, StudySummary
from lorascope.text.numbers import format_count, format_seconds
from lorascope.text.tables.advice import headline
from lorascope.text.tables.overview import short_name, unsteady_mark
from lorascope.text.tables.ranks import excess_with_interval, rank_columns
from lorascope.text.write_up import markdown
from lorascope.units import format_bytes


def model_card(summary: StudySummary, part: RankSection, *, base: str, repo: str) -> str:
    """Write the card without its metadata, in English.

    Args:
        summary: the study.
        part: the rank of the adapter.
        base: hub id of the base model.
        repo: hub id of the adapter.
    """
    rows = "\n".join(f"| {name} | {_cell(text)} |" for name, text in _facts(summary, part, base))
    command = summary.environment.command if summary.environment else "lorascope run"
    return f"""# {repo.rpartition("/")[2]}

LoRA adapter of rank {part.rank} for [{base}](https://huggingface.co/{base}).

| | |
| --- | --- |
{rows}

## Use

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = AutoModelForCausalLM.from_pretrained("{base}")
model, tokenizer = PeftModel.from_pretrained(base, "{repo}"), AutoTokenizer.from_pretrained("{base}")
```

## Comparison with other ranks

{headline(summary)}

{markdown(summary)}
The whole report is in `report.html`.

## Repeat it

```sh
{command}
```

## Licence

None is given here. That of the base model and that of the data bind this adapter, too.
"""


def _facts(summary: StudySummary, part: RankSection, base: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each fact that is known."""
    study, columns, mark = summary.study, rank_columns(), unsteady_mark(summary)
    yield "base model", base
    data = short_name(study.dataset) if Path(study.dataset).is_absolute() else study.dataset
    yield "data", f"{data}, {format_count(study.train_examples or 0)} rows"
    yield "rank", str(part.rank)
    if part.lora_alpha is not None and part.scale is not None:
        yield "alpha", f"{part.lora_alpha:g} (updates are scaled by {part.scale:.4g})"
    yield "adapted layers", f"{study.adapted_modules}{f' ({study.targets})' if study.targets else ''}"
    yield "learning rate", f"{part.best_learning_rate:g}" if part.best_learning_rate is not None else ""
    yield "steps", str(study.total_steps)
    if part.trainable_parameters is not None and part.adapter_bytes is not None:
        yield "parameters", f"{format_count(part.trainable_parameters)} ({format_bytes(part.adapter_bytes)})"
    rows = format_count(summary.compared_rows or 0)
    yield "held-out loss (95 %)", f"{columns['eval_loss'].with_interval(part)} nats per token on {rows} rows"
    yield "above the study's lowest (95 %)", excess_with_interval(part)
    if part.step_seconds is not None and part.runtime_seconds is not None:
        whole = format_seconds(part.runtime_seconds)
        yield "training alone", f"{format_seconds(part.step_seconds)}{mark} a step, {whole}{mark} in all"
    if part.peak_memory_bytes is not None:
        yield "peak memory, trained alone", format_bytes(part.peak_memory_bytes)
    if summary.environment:
        yield "device", f"{summary.environment.device_name}, {study.dtype}"
        yield "trained by", f"lorascope {summary.environment.lorascope_version}"


def _cell(text: str) -> str:
    return text.replace("|", r"\|") or "unknown"
