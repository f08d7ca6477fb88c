"""Remake everything shipped — corpus, tokenizer, training, capture, model card: `python -m gpu_reference.remake`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from catalog.errors import ForestageError
from catalog.files import write_text
from gpu_reference import files
from gpu_reference.capturing.shipped_model import CaptureOptions, capture, choose_prompts
from gpu_reference.devices import check_device
from gpu_reference.small_moe import SmallMoEShape, load_model, load_tokenizer, save_checkpoint, train_tokenizer
from gpu_reference.training.corpus import balanced_texts, load_corpus
from gpu_reference.training.options import TrainingOptions

MODEL_NAME = "forestage-small-moe"
LICENCE = "Apache-2.0"
STAGES = ("train", "capture", "card")


def train_stage(work: Path, out: Path, *, shape: SmallMoEShape, options: TrainingOptions) -> None:
    """Train (or continue) in ``work`` and write ``checkpoint/`` and ``training_log.json`` to ``out``.

    Raises:
        ForestageError: if the corpus cannot be fetched or a folder cannot be written.
    """
    from gpu_reference.training.batches import tokenise
    from gpu_reference.training.train import train

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
    save_checkpoint(model, tokenizer, out / files.CHECKPOINT)
    write_text(out / files.TRAINING_LOG, (work / files.TRAINING_LOG).read_text(encoding="utf-8"))


def capture_stage(out: Path, *, options: CaptureOptions, device: str) -> None:
    """Let the checkpoint in ``out`` generate, and record its routing in ``trace.safetensors`` there.

    Raises:
        ForestageError: if there is no checkpoint, the corpus cannot be fetched, or a check of the routing fails.
    """
    from rich.console import Console
    from rich.progress import Progress

    checkpoint = out / files.CHECKPOINT
    model, tokenizer = load_model(checkpoint, device=device), load_tokenizer(checkpoint)
    prompts = choose_prompts(load_corpus(), tokenizer, options)
    how = ", ".join(f"{name} {value}" for name, value in options)
    metadata = {"model": MODEL_NAME, "licence": LICENCE, "source": f"python -m gpu_reference.remake ({how})"}
    with Progress(console=Console(stderr=True)) as display:
        task = display.add_task("capturing", total=len(prompts))
        trace = capture(
            model,
            tokenizer,
            prompts,
            options=options,
            metadata=metadata,
            progress=lambda done, _: display.update(task, completed=done),
        )
    trace.save(out / files.TRACE)


def card_stage(out: Path) -> None:
    """Write the model card and its picture from the files in ``out``.

    Raises:
        ForestageError: if the checkpoint, log or trace is missing or malformed.
    """
    from gpu_reference.training.model_card import write_card

    write_card(out)


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    training, capturing = TrainingOptions(), CaptureOptions()
    parser = argparse.ArgumentParser(prog="python -m gpu_reference.remake", description=__doc__)
    parser.add_argument("--out", type=Path, default=files.SHIPPED, help="where the results go (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=Path("build/small_moe"), help="state of an interrupted run")
    parser.add_argument("--stage", choices=STAGES, action="append", help="only this stage; repeat for several")
    parser.add_argument("--tokens", type=int, default=training.tokens, help="token budget (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=training.minutes, help="wall-clock budget of the training")
    parser.add_argument("--seed", type=int, default=training.seed)
    parser.add_argument("--device", default=training.device, help="cpu or cuda (default: %(default)s)")
    parser.add_argument(
        "--threads",
        type=int,
        help="CPU threads; 1 is best where other work runs beside it (two threads that wait for each other "
        "were 10 times slower on a busy 2-core machine)",
    )
    parser.add_argument(
        "--sequences", type=int, default=capturing.sequences_per_domain, help="captured sequences of each domain"
    )
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the stages; a bad request prints one line on stderr and gives exit status 2."""
    chosen = _arguments(arguments)
    stages = chosen.stage or STAGES
    try:
        check_device(chosen.device)
        if chosen.threads is not None:
            import torch

            torch.set_num_threads(max(chosen.threads, 1))
        if "train" in stages:
            values = {name: getattr(chosen, name) for name in ("tokens", "minutes", "seed", "device")}
            values["bf16"] = chosen.device.startswith("cuda")
            options = TrainingOptions.parse(values, origin="options")
            train_stage(chosen.work, chosen.out, shape=SmallMoEShape(), options=options)
        if "capture" in stages:
            values = {"seed": chosen.seed, "sequences_per_domain": chosen.sequences}
            capturing = CaptureOptions.parse(values, origin="options")
            capture_stage(chosen.out, options=capturing, device=chosen.device)
        if "card" in stages:
            card_stage(chosen.out)
    except ForestageError as error:
        print(f"forestage: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
