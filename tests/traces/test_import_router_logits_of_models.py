"""Router logits of models, saved as the documentation says, beside the choice that the model itself made."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from traces import DECODE, PREFILL, RoutingTrace
from traces.importers import Imported, ImportOptions, import_recording
from traces.importers.assembly.selection_table import known_model

torch = pytest.importorskip("torch", reason="runs models of transformers")
transformers = pytest.importorskip("transformers", reason="runs models of transformers")

PROMPT, NEW = 20, 4
BATCH = 3

FIELD_MODELS = (
    "qwen2_moe", "qwen3_next", "qwen3_5_moe_text", "glm4_moe", "dots1", "minimax_m2", "granitemoe", "phimoe",
    "lfm2_moe", "ernie4_5_moe", "hunyuan_v1_moe", "flex_olmo", "llama4_text", "jamba",
)  # fmt: skip


def small_model(name: str) -> Any:
    """A random model: softmax alone with an auxiliary loss, groups and a bias, or a dense first layer."""
    common = {
        "vocab_size": 99, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2,
        "num_key_value_heads": 2, "head_dim": 16, "num_experts_per_tok": 2, "pad_token_id": 0, "eos_token_id": 98,
        "moe_intermediate_size": 16, "max_position_embeddings": 64,
    }  # fmt: skip
    config = {
        "mixtral": lambda: transformers.MixtralConfig(num_local_experts=8, **common),
        "deepseek_v32": lambda: transformers.Glm4MoeConfig(
            n_routed_experts=8, n_group=4, topk_group=2, first_k_dense_replace=1, **common
        ),
    }[name]()
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for key, value in [*model.named_parameters(), *model.named_buffers()]:
        if value.is_floating_point() and (value.dim() >= 2 or "correction" in key):
            value.data.normal_(std=0.3)
    return model.eval()


class Choices:
    """The experts that a model's routers choose, call by call."""

    def __init__(self, model: Any) -> None:
        self.routers = [part for part in model.modules() if type(part).__name__.endswith(("Router", "V1Gate"))]
        self.calls: list[list[npt.NDArray[Any]]] = [[] for _ in self.routers]
        for number, router in enumerate(self.routers):
            router.register_forward_hook(lambda part, _, out, number=number: self.keep(number, part, out))

    def keep(self, number: int, router: Any, output: Any) -> None:
        ids = output[0].float().topk(router.top_k, dim=-1).indices if len(output) == 2 else output[2]
        self.calls[number].append(ids.sort(dim=-1).values.numpy().reshape(BATCH, -1, ids.shape[-1]))

    def of_sequence(self, index: int) -> npt.NDArray[Any]:
        """``[tokens, layers, top_k]``, padding included."""
        return np.stack([np.concatenate([call[index] for call in calls]) for calls in self.calls], axis=1)


def record(model: Any, folder: Path, mask: Any, tokens: Any) -> tuple[Path, Path | None]:
    """Generate, and save router logits and the bias as the documentation does."""
    passes: list[dict[str, Any]] = []
    hooks = [
        model.base_model.register_forward_pre_hook(
            lambda module, args, kwargs: (args, {**kwargs, "output_router_logits": True}), with_kwargs=True
        ),
        model.base_model.register_forward_hook(
            lambda module, args, kwargs, out: passes.append(
                {"input_ids": kwargs["input_ids"], "router_logits": out.router_logits}
            ),
            with_kwargs=True,
        ),
    ]
    with torch.no_grad():
        model.generate(
            input_ids=tokens,
            attention_mask=mask,
            max_new_tokens=NEW,
            min_new_tokens=NEW,
            do_sample=False,
            pad_token_id=0,
        )
    for hook in hooks:
        hook.remove()
    path = folder / "logits.pt"
    torch.save({"passes": passes, "attention_mask": mask, "pad_token_id": 0}, path)
    named = [*model.named_buffers(), *model.named_parameters()]
    bias = {name: value for name, value in named if name.endswith(("e_score_correction_bias", "expert_bias"))}
    if not bias:
        return path, None
    torch.save(bias, folder / "bias.pt")
    return path, folder / "bias.pt"


def check(model: Any, family: str, folder: Path, **options: Any) -> Imported:
    """Import what a model returns, and compare it with the model's own choice, token by token and layer by layer."""
    choices = Choices(model)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, 90, (BATCH, PROMPT), generator=generator)
    mask = torch.ones_like(tokens)
    mask[0, :7] = 0
    path, bias = record(model, folder, mask, tokens)
    known = known_model(family)
    assert known is not None
    if bias is not None:
        options["selection_bias"] = bias
    if known.groups is None:
        options |= {"groups": model.config.n_group or 1, "top_groups": model.config.topk_group or 1}
    if known.normalised is None:
        options["gate_weights"] = "normalised" if model.config.norm_topk_prob else known.family.weight
    dense = model.config.num_hidden_layers - len(choices.routers)
    if dense:
        options["layers"] = tuple(range(dense, model.config.num_hidden_layers))
    top_k = choices.routers[0].top_k
    given = ImportOptions.parse({"model": family, "top_k": top_k, **options}, origin="test")
    imported = import_recording(path, options=given)
    trace = imported.recording
    assert isinstance(trace, RoutingTrace)
    for index in range(BATCH):
        rows = trace.sequence_slice(index)
        expected = choices.of_sequence(index)[int((mask[index] == 0).sum()) :]
        assert trace.phase[rows].tolist() == [PREFILL] * (len(expected) - NEW + 1) + [DECODE] * (NEW - 1)
        np.testing.assert_array_equal(np.sort(trace.expert_ids[rows], axis=-1), expected)
    assert imported.warnings == ()
    return imported


def test_a_model_that_chooses_by_logits_alone(tmp_path: Path) -> None:
    check(small_model("mixtral"), "mixtral", tmp_path)


def test_a_model_with_groups_a_bias_and_a_dense_layer(tmp_path: Path) -> None:
    imported = check(small_model("deepseek_v32"), "deepseek_v32", tmp_path)
    assert isinstance(imported.recording, RoutingTrace)
    assert imported.recording.metadata.layer_map == (1, 2)


@pytest.mark.parametrize("name", FIELD_MODELS)
def test_the_models_of_the_field_cases(name: str, field_case: Callable[[str], Path], tmp_path: Path) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(field_case("models") / name)
    model.generation_config.eos_token_id = None
    check(model.eval(), name, tmp_path)
