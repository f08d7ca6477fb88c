"""A local Hugging Face model folder: its model, tokenizer and name."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from catalog.errors import ForestageError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
DTYPES: tuple[str, ...] = get_args(Dtype)

_SNAPSHOTS = "snapshots"  # in the download cache: models--OWNER--NAME/snapshots/REVISION


@dataclass(frozen=True)
class ModelFolder:
    """A checked folder: it has ``config.json``, ``tokenizer.json`` and safetensors weights."""

    path: Path
    config: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> ModelFolder:
        """Check that ``path`` is a model folder; no weights are read.

        Raises:
            ForestageError: naming the file that is missing or malformed.
        """
        if not path.is_dir():
            raise ForestageError(f"{path}: no such folder; give a local Hugging Face model folder (nothing is fetched)")
        for name in ("config.json", "tokenizer.json"):
            if not (path / name).is_file():
                raise ForestageError(f"{path / name}: no such file; a Hugging Face model folder has one")
        if not any(path.glob("*.safetensors")):
            raise ForestageError(f"{path}: no *.safetensors file; convert the weights (pickles are not read)")
        try:
            config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ForestageError(f"{path / 'config.json'}: cannot be read ({error})") from error
        if not isinstance(config, dict):
            raise ForestageError(f"{path / 'config.json'}: must be a JSON object")
        if config.get("is_encoder_decoder") is True:
            raise ForestageError(
                f"{path / 'config.json'}: {config.get('model_type')} is an encoder-decoder; a trace holds "
                "one stack: give a decoder-only model"
            )
        return cls(path, config)

    def model_name(self) -> str:
        """The model's name as its publisher writes it, as far as the folder tells.

        It is the configuration's ``_name_or_path`` if that has the form OWNER/NAME, else the name from the download
        cache's folder, else the folder's own name.
        """
        named = self.config.get("_name_or_path")
        name = self.path.resolve().name
        if isinstance(named, str) and named.count("/") == 1 and all(named.split("/")) and named[0] not in "./~":
            name = named
        elif self.path.resolve().parent.name == _SNAPSHOTS:
            name = self.path.resolve().parents[1].name.removeprefix("models--").replace("--", "/")
        return name

    def fingerprint(self) -> str:
        """A hash of configuration, tokenizer and the weights' names and sizes, which identifies the model folder."""
        digest = hashlib.sha256()
        for name in ("config.json", "tokenizer.json"):
            digest.update((self.path / name).read_bytes())
        for file in sorted(self.path.glob("*.safetensors")):
            digest.update(f"{file.name} {file.stat().st_size}\n".encode())
        return digest.hexdigest()[:16]

    def load_tokenizer(self) -> Tokenizer:
        """The tokenizer, which adds the special tokens that the model expects.

        Raises:
            ForestageError: if the file is malformed.
        """
        from tokenizers import Tokenizer

        file = self.path / "tokenizer.json"
        try:
            return Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises a bare Exception
            raise ForestageError(f"{file}: not a tokenizer ({_one_line(error)})") from error

    def load_model(self, *, dtype: Dtype, device: str) -> Any:
        """The causal language model in evaluation mode; code in the folder is not run.

        A model that `transformers` has only with its image encoder is loaded with it, and gets only text.

        Raises:
            ForestageError: if `transformers` does not know the architecture, or weights are missing or do not fit.
        """
        import torch
        import transformers
        from safetensors import SafetensorError
        from transformers.models.auto import modeling_auto

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        with_images = modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
        only_so = self.config.get("model_type") in set(with_images) - set(
            modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        )
        loader = transformers.AutoModelForImageTextToText if only_so else transformers.AutoModelForCausalLM
        try:
            model, report = loader.from_pretrained(
                self.path,
                dtype=dtype if dtype == "auto" else getattr(torch, dtype),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
            lacking = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
            if lacking:
                raise ForestageError(f"{self.path}: weights missing or of another shape (first: {lacking[0]})")
            return model.to(device).eval()
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError) as error:
            raise ForestageError(f"{self.path}: the model cannot be loaded ({_one_line(error)})") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
