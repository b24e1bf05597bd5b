import pytest
import torch
from torch import nn

from bound import Form, attention_seconds, record_products, recorded_attention, replay_seconds
from lorascope.engine.forward import MicroBatchRow
from lorascope.engine.trial import TrainingTrial
from lorascope.engine.verify import prepare_model
from lorascope.modeling.adapters.adapter import attach
from lorascope.modeling.backends.cpu import backend
from lorascope.modeling.backends.cpu.autograd import RowAttention
from lorascope.modeling.backends.cpu.bindings import Kernels
from lorascope.modeling.backends.cpu.ctypes_structs import AttentionPlan
from lorascope.search.trials import plan_trials
from support.groups import make_spec
from support.kernels import kernels_of, load_level
from support.references import make_rows
from support.tiny_models import CONFIGS, TARGETS, make_examples, make_model, make_splits

ROWS, LENGTH = 3, 7


def llama_flops() -> int:
    """What the shapes say: forward, then twice that backward, as every weight and every input has a gradient."""
    config = CONFIGS["llama"]
    width, inner = config.hidden_size, config.intermediate_size
    head_width = width // config.num_attention_heads
    narrow = config.num_key_value_heads * head_width
    layer = 2 * width * width + 2 * width * narrow + 3 * width * inner
    linear = 2 * ROWS * LENGTH * (config.num_hidden_layers * layer + width * config.vocab_size)
    attention = 2 * 2 * ROWS * config.num_hidden_layers * width * LENGTH * LENGTH
    return 3 * (linear + attention)


def test_recorded_products_have_the_flops_of_their_shapes() -> None:
    model = make_model("llama", torch.float32).requires_grad_()
    model.set_attn_implementation("eager")
    ids = torch.randint(0, CONFIGS["llama"].vocab_size, (ROWS, LENGTH))
    products = record_products(lambda: model(input_ids=ids, use_cache=False).logits.sum().backward())
    assert sum(product.flops for product in products) == llama_flops()


def test_recorded_products_of_a_frozen_layer_omit_its_weight_gradient() -> None:
    layer, x = nn.Linear(5, 4).requires_grad_(requires_grad=False), torch.ones(3, 5, requires_grad=True)
    products = record_products(lambda: layer(x).sum().backward())
    assert [product.flops for product in products] == [2 * 3 * 5 * 4] * 2


def test_replay_uses_existing_tensors_unless_written() -> None:
    weight, sums = torch.randn(6, 4), torch.zeros(4, 4)

    def run() -> None:
        x = torch.randn(4, 12)[:, ::2]
        sums.addmm_(x, weight)

    (product,) = record_products(run)
    assert product.flops == 2 * 4 * 6 * 4
    written, x, kept = product.arguments
    assert written == Form(shape=(4, 4), stride=(4, 1), dtype=torch.float32, device=torch.device("cpu"))
    assert x == Form(shape=(4, 6), stride=(12, 2), dtype=torch.float32, device=torch.device("cpu"))
    assert isinstance(kept, torch.Tensor)
    assert kept.data_ptr() == weight.data_ptr()
    before = weight.clone(), sums.clone()
    assert replay_seconds([product]) > 0
    assert torch.equal(weight, before[0])
    assert torch.equal(sums, before[1])


def test_replay_of_out_variants_writes_elsewhere() -> None:
    a, b, result = torch.randn(2, 3), torch.randn(3, 5), torch.zeros(2, 5)
    (product,) = record_products(lambda: torch.mm(a, b, out=result))
    before = result.clone()
    assert product.flops == 2 * 2 * 3 * 5
    assert isinstance(product.keywords["out"], Form)
    assert replay_seconds([product] * 20) > 0
    assert torch.equal(result, before)


def test_attention_flops_count_masked_scores_and_shared_prefixes() -> None:
    kernels = kernels_of("own")
    heads, kv_heads, features = 4, 2, 8
    rows = make_rows((5, 3), parents=(-1, 0))
    q, k, v = (torch.randn(8, n, features, requires_grad=True) for n in (heads, kv_heads, kv_heads))
    before = Kernels.attention_forward
    with recorded_attention() as found:
        RowAttention.apply(q, k, v, AttentionPlan(rows=rows, scaling=1.0), kernels).sum().backward()
    assert Kernels.attention_forward is before
    scores = (1 + 2 + 3 + 4 + 5) + (6 + 7 + 8)
    assert sum(product.flops for product in found) == (2 + 4) * 2 * heads * features * scores
    assert attention_seconds(found) > 0
    assert attention_seconds([]) == 0


def test_replay_of_adapters_has_the_dtype_of_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their weights are float32 and rounded inside of the kernels."""
    kernels_of("vectors")
    monkeypatch.setattr(backend, "load_kernels", lambda: load_level("vectors"))
    sizes = {"hidden_size": 64, "num_attention_heads": 4, "head_dim": 16, "intermediate_size": 96}
    model, spec = make_model("llama", torch.bfloat16, vocabulary=64, **sizes), make_spec(ranks=(32,))
    frozen, _ = prepare_model(model, TARGETS["llama"], make_splits().train, packing=True, kernels=True)
    (trial,) = [TrainingTrial(record, spec, frozen.layers, model.dtype) for record in plan_trials(spec)]
    attach(frozen.layers, [trial.adapter])
    rows = [
        MicroBatchRow(example=row, adapter=0, stream=(0, 0, i)) for i, row in enumerate(make_examples(6, longest=70))
    ]
    products = record_products(lambda: torch.cat(frozen.row_nats(rows)).sum().backward())
    low_rank = [product for product in products if 32 in product.arguments[1].shape]
    assert len(low_rank) > 4 * len(frozen.layers)
    assert {operand.dtype for product in products for operand in product.arguments} == {torch.bfloat16}
    assert replay_seconds(products) > 0
