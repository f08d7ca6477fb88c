from typing import Any

import pytest
import torch

from gpu_reference.small_moe import SmallMoEShape, build_model, train_tokenizer
from gpu_reference.training.batches import TokenStream, tokenise
from gpu_reference.training.corpus import CODE, PROSE, Document

TINY = SmallMoEShape(
    layers=3, experts=8, top_k=2, hidden=32, intermediate=16, heads=2, kv_heads=1, head_dim=16, vocabulary=300
)


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_shape() -> SmallMoEShape:
    return TINY


@pytest.fixture(scope="session")
def tiny_model() -> Any:
    return build_model(TINY, seed=3).eval()


@pytest.fixture(scope="session")
def documents() -> list[Document]:
    """Some of each domain; which are held out follows from the names."""
    code = "def f_{0}(x):\n    return x + {0}\n\n\n" * 60
    prose = "The quick brown fox number {0} jumps over the lazy dog, and then it rests.\n\n" * 60
    texts = {CODE: code, PROSE: prose}
    return [
        Document(name=f"{domain}/{number}", domain=domain, text=text.replace("{0}", str(number)))
        for domain, text in texts.items()
        for number in range(60)
    ]


@pytest.fixture(scope="session")
def tokenizer(documents: list[Document]) -> Any:
    return train_tokenizer((document.text for document in documents), TINY.vocabulary)


@pytest.fixture(scope="session")
def streams(documents: list[Document], tokenizer: Any) -> tuple[dict[str, TokenStream], dict[str, TokenStream]]:
    training = [document for document in documents if not document.held_out]
    held_out = [document for document in documents if document.held_out]
    return tokenise(training, tokenizer, 0), tokenise(held_out, tokenizer, 0)
