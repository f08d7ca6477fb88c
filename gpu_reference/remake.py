"""Remake everything shipped: corpus, tokenizer, training, capture and model card. `python -m gpu_reference.remake`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from catalog.errors import ForestageError
from gpu_reference.batches import tokenise
from gpu_reference.corpus import balanced_texts, load_corpus
from gpu_reference.small_moe import SmallMoEShape, load_tokenizer, save_checkpoint, train_tokenizer
from gpu_reference.train import TrainingOptions, train
from traces.files import write_text

SHIPPED = Path(__file__).parent / "shipped"


def train_stage(work: Path, out: Path, *, shape: SmallMoEShape, options: TrainingOptions) -> None:
    """Train (or continue) in ``work`` and write ``checkpoint/`` and ``training_log.json`` to ``out``.

    Raises:
        ForestageError: if the corpus cannot be fetched or a folder cannot be written.
    """
    documents = load_corpus()
    training = [document for document in documents if not document.held_out]
    held_out = [document for document in documents if document.held_out]
    tokenizer_file = work / "tokenizer.json"
    if tokenizer_file.is_file():
        tokenizer = load_tokenizer(work)
    else:
        tokenizer = train_tokenizer(balanced_texts(training), shape.vocabulary)
        write_text(tokenizer_file, tokenizer.to_str())
    model, _ = train(
        tokenise(training, tokenizer, options.seed),
        tokenise(held_out, tokenizer, options.seed),
        work,
        shape=shape,
        options=options,
    )
    save_checkpoint(model, tokenizer, out / "checkpoint")
    write_text(out / "training_log.json", (work / "training_log.json").read_text(encoding="utf-8"))


def _arguments() -> argparse.Namespace:
    defaults = TrainingOptions()
    parser = argparse.ArgumentParser(prog="python -m gpu_reference.remake", description=__doc__)
    parser.add_argument("--out", type=Path, default=SHIPPED, help="where the results go (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path("build/small_moe"), help="state of an interrupted run")
    parser.add_argument("--tokens", type=int, default=defaults.tokens, help="token budget (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=defaults.minutes, help="wall-clock budget of the training")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--device", default=defaults.device, help="cpu or cuda")
    return parser.parse_args()


def main() -> int:
    """Run all stages; a bad request is one line on stderr and exit status 2."""
    arguments = _arguments()
    options = TrainingOptions(
        tokens=arguments.tokens,
        minutes=arguments.minutes,
        seed=arguments.seed,
        device=arguments.device,
        bf16=arguments.device.startswith("cuda"),
    )
    try:
        train_stage(arguments.work, arguments.out, shape=SmallMoEShape(), options=options)
    except ForestageError as error:
        print(f"forestage: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
