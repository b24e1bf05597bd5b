import json
from pathlib import Path

import pytest

from lorascope.modeling.end_tokens import end_token_ids
from lorascope.modeling.load import ModelSource


@pytest.mark.parametrize(
    ("config", "generation", "ids"),
    [
        ({"eos_token_id": 1}, {"eos_token_id": [1, 7]}, {1, 7}),
        ({"eos_token_id": [3]}, None, {3}),
        ({}, {"eos_token_id": 5}, {5, 2}),  # 2 is LLaMA's own
        ({"eos_token_id": 1}, "not JSON", {1}),
    ],
)
def test_end_tokens_are_those_of_the_configuration_and_the_generation_settings(
    tmp_path: Path, config: dict[str, object], generation: object, ids: set[int]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    if generation is not None:
        text = generation if isinstance(generation, str) else json.dumps(generation)
        (tmp_path / "generation_config.json").write_text(text)
    assert end_token_ids(ModelSource(path=str(tmp_path), trust_remote_code=False)) == ids
