"""The small mixture-of-experts language model that Forestage trains and ships: shape, tokenizer, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from catalog.config import StrictModel
from catalog.errors import ForestageError
from catalog.files import atomic_path, write_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"
END_OF_TEXT_ID = 0
WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"


class SmallMoEShape(StrictModel):
    """The sizes of a small `Qwen3MoeForCausalLM`; the defaults are the shipped model's (8.1 million parameters).

    Attributes:
        layers: decoder layers, all of them mixture-of-experts layers.
        experts: experts in a layer.
        top_k: experts that a token uses in a layer.
        hidden: width of the residual stream.
        intermediate: inner width of an expert.
        heads: query heads.
        kv_heads: key and value heads.
        head_dim: width of a head.
        vocabulary: tokens of the byte-level BPE (256 bytes, the end of text, and merges).
        context: number of positions for which the rotary embedding is configured.
    """

    layers: int = Field(default=8, ge=1)
    experts: int = Field(default=32, ge=1)
    top_k: int = Field(default=4, ge=1)
    hidden: int = Field(default=144, ge=1)
    intermediate: int = Field(default=64, ge=1)
    heads: int = Field(default=4, ge=1)
    kv_heads: int = Field(default=2, ge=1)
    head_dim: int = Field(default=32, ge=2, multiple_of=2)
    vocabulary: int = Field(default=4096, ge=257, le=65536)
    context: int = Field(default=512, ge=1)

    def config(self) -> Any:
        """Return the `transformers` configuration."""
        from transformers import Qwen3MoeConfig

        return Qwen3MoeConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            moe_intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            head_dim=self.head_dim,
            num_experts=self.experts,
            num_experts_per_tok=self.top_k,
            norm_topk_prob=True,
            decoder_sparse_step=1,
            mlp_only_layers=[],
            max_position_embeddings=self.context,
            tie_word_embeddings=True,
            use_sliding_window=False,
            router_aux_loss_coef=0.01,
            output_router_logits=False,
            bos_token_id=END_OF_TEXT_ID,
            eos_token_id=END_OF_TEXT_ID,
            pad_token_id=None,
        )


def build_model(shape: SmallMoEShape, seed: int) -> Any:
    """Return a new `Qwen3MoeForCausalLM` (float32, CPU); its experts run as grouped matrix products."""
    import torch
    from transformers import Qwen3MoeForCausalLM

    torch.manual_seed(seed)
    model = Qwen3MoeForCausalLM(shape.config())
    model.set_experts_implementation("grouped_mm")
    return model


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Train a byte-level BPE of ``vocabulary`` tokens; id 0 is the end-of-text token."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    # As in GPT-4: runs of blanks (indentation) are separate tokens, digits are grouped in threes at most.
    pattern = (
        r"'(?i:[sdmt]|ll|ve|re)|"
        r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save_checkpoint(model: Any, tokenizer: Tokenizer, folder: Path) -> None:
    """Write ``model`` (bfloat16 safetensors, tied embedding once), its configuration and the tokenizer to ``folder``.

    Raises:
        ForestageError: if the folder cannot be written.
    """
    import torch
    from safetensors.torch import save_file

    state = {
        name: value.detach().to("cpu", torch.bfloat16).contiguous()
        for name, value in model.state_dict().items()
        if name != "lm_head.weight"
    }
    with atomic_path(folder / WEIGHTS_FILE) as temporary:
        save_file(state, temporary, metadata={"format": "pt"})
    config = {**model.config.to_dict(), "architectures": [type(model).__name__], "dtype": "bfloat16"}
    write_text(folder / CONFIG_FILE, json.dumps(config, indent=2, sort_keys=True) + "\n")
    write_text(folder / TOKENIZER_FILE, tokenizer.to_str())


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load the tokenizer of a checkpoint folder.

    Raises:
        ForestageError: if its file is missing or malformed.
    """
    from tokenizers import Tokenizer

    path = folder / TOKENIZER_FILE
    if not path.is_file():
        raise ForestageError(f"{path}: no such file; make it with `python -m gpu_reference.remake`")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises a bare Exception
        raise ForestageError(f"{path}: not a tokenizer ({error}); remake it") from error


def load_model(folder: Path, *, dtype: str = "float32", device: str = "cpu") -> Any:
    """Load a checkpoint folder as a `Qwen3MoeForCausalLM` in evaluation mode.

    ``dtype`` is the name of a torch type; the weights on disk are bfloat16.

    Raises:
        ForestageError: if a file is missing, malformed, or does not fit the configuration.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise ForestageError(f"{folder / name}: no such file; make it with `python -m gpu_reference.remake`")
    try:
        config = Qwen3MoeConfig.from_json_file(str(folder / CONFIG_FILE))
        state = load_file(folder / WEIGHTS_FILE)
    except (SafetensorError, ValueError, OSError) as error:
        raise ForestageError(f"{folder}: checkpoint cannot be read ({error}); remake it") from error
    model = Qwen3MoeForCausalLM(config)
    model.set_experts_implementation("grouped_mm")
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ForestageError(f"{folder / WEIGHTS_FILE}: tensors do not fit {CONFIG_FILE} ({reason})") from error
    wrong = [*(name for name in missing if name != "lm_head.weight"), *unexpected]
    if wrong:
        raise ForestageError(f"{folder / WEIGHTS_FILE}: tensors do not fit {CONFIG_FILE} (first: {wrong[0]})")
    model.tie_weights()
    return model.to(device=device, dtype=getattr(torch, dtype)).eval()
