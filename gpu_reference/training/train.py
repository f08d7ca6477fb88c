"""Train the small mixture-of-experts model: AdamW, warm-up and cosine, two budgets, resumable."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from catalog.errors import ForestageError
from catalog.files import atomic_path, write_text
from gpu_reference.devices import check_device
from gpu_reference.small_moe import SmallMoEShape, build_model
from gpu_reference.training.batches import TokenStream, WindowSampler, validation_windows
from gpu_reference.training.options import TrainingOptions, learning_rate_at

if TYPE_CHECKING:
    import torch

STATE_FILE = "state.pt"
LOG_FILE = "training_log.json"


@dataclass
class TrainingLog:
    """The content of ``training_log.json``."""

    options: dict[str, Any]
    shape: dict[str, Any]
    parameters: int
    corpus_tokens: dict[str, dict[str, int]]
    machine: dict[str, Any]
    steps: list[dict[str, float]] = field(default_factory=list)
    validation: list[dict[str, Any]] = field(default_factory=list)
    elapsed_s: float = 0.0
    step: int = 0
    resumed: int = 0
    finished: bool = False


def balance_loss(router_logits: tuple[torch.Tensor, ...], top_k: int) -> torch.Tensor:
    """Return the load-balancing loss of Switch Transformers, per layer, then averaged; 1 for equal loads.

    ``router_logits`` holds one ``[tokens, experts]`` tensor per layer. `transformers` averages over all layers *before*
    it takes the product, which can hide a layer with one hot expert; here each layer is judged by itself.
    """
    import torch

    losses = []
    for logits in router_logits:
        probabilities = torch.softmax(logits.float(), dim=-1)
        experts = logits.shape[-1]
        chosen = probabilities.topk(top_k, dim=-1).indices
        load = torch.bincount(chosen.flatten(), minlength=experts).to(probabilities.dtype) / chosen.numel()
        losses.append(experts * (load * probabilities.mean(dim=0)).sum())
    return torch.stack(losses).mean()


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the mean loss in nats of ``logits [batch, context, vocabulary]`` against ``targets [batch, context]``."""
    import torch.nn.functional as functional

    return functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def validate(model: Any, windows: dict[str, np.ndarray], device: str, rows: int = 8) -> dict[str, float]:
    """Return the mean next-token loss (nats) of each domain's held-out windows."""
    import torch

    losses = {}
    model.eval()
    with torch.no_grad():
        for domain, array in windows.items():
            total = 0.0
            for start in range(0, len(array), rows):
                part = torch.from_numpy(array[start : start + rows]).to(device)
                total += cross_entropy(model(input_ids=part[:, :-1]).logits, part[:, 1:]).item() * len(part)
            losses[domain] = total / len(array)
    model.train()
    return losses


def _optimizer(model: Any, options: TrainingOptions) -> torch.optim.AdamW:
    import torch

    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": options.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.95), fused=True)


def machine() -> dict[str, Any]:
    """Return the facts that identify the machine and the versions of a measurement."""
    import os
    import platform

    import torch
    import transformers

    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "torch": str(torch.__version__),
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _save_state(folder: Path, model: Any, optimizer: torch.optim.AdamW, log: TrainingLog) -> None:
    import torch

    with atomic_path(folder / STATE_FILE) as temporary:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "log": asdict(log)}, temporary)


def _load_state(folder: Path, model: Any, optimizer: torch.optim.AdamW, log: TrainingLog, device: str) -> TrainingLog:
    """Continue from a saved state; except for the budgets, its options must be ``log``'s."""
    import torch

    path = folder / STATE_FILE
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise ForestageError(f"{path}: cannot be resumed ({type(error).__name__}); delete it to start again") from error
    budgets = {"tokens", "minutes", "device"}
    for key, value in log.options.items():
        if key not in budgets and state["log"]["options"][key] != value:
            raise ForestageError(
                f"{path}: {key} was {state['log']['options'][key]} and is now {value}; delete it to start again"
            )
    for key, wanted in (("shape", log.shape), ("corpus_tokens", log.corpus_tokens)):
        if state["log"][key] != wanted:
            raise ForestageError(f"{path}: was trained with another {key}; delete it to start again")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    resumed = TrainingLog(**state["log"])
    resumed.options, resumed.resumed = log.options, resumed.resumed + 1
    return resumed


def train(
    train_streams: dict[str, TokenStream],
    validation_streams: dict[str, TokenStream],
    folder: Path,
    *,
    shape: SmallMoEShape | None = None,
    options: TrainingOptions | None = None,
    stop_after_steps: int | None = None,
) -> tuple[Any, TrainingLog]:
    """Train to the end of the budget, saving state in ``folder``, and return the model and its log.

    If ``folder`` has a state, training continues from it. ``stop_after_steps`` ends this call early, as an interruption
    would.

    Raises:
        ForestageError: if the folder cannot be written or its state belongs to other options.
    """
    import torch

    shape, options = shape or SmallMoEShape(), options or TrainingOptions()
    check_device(options.device)
    model = build_model(shape, options.seed).to(options.device).train()
    optimizer = _optimizer(model, options)
    sampler = WindowSampler(train_streams, context=options.context, batch=options.batch, seed=options.seed)
    held_out = {
        domain: validation_windows(stream, context=options.context, count=options.validation_windows)
        for domain, stream in validation_streams.items()
    }
    parts = {"train": train_streams, "validation": validation_streams}
    log = TrainingLog(
        options=options.model_dump(),
        shape=shape.model_dump(),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        corpus_tokens={part: {d: len(s.tokens) for d, s in streams.items()} for part, streams in parts.items()},
        machine=machine(),
    )
    if (folder / STATE_FILE).is_file():
        log = _load_state(folder, model, optimizer, log, options.device)

    step_tokens = options.batch * options.context
    started, before = time.monotonic(), log.elapsed_s
    first_step = log.step
    with _progress() as progress:
        task = progress.add_task("training", total=1.0, figures="")
        while not log.finished:
            if stop_after_steps is not None and log.step - first_step >= stop_after_steps:
                break
            along = max(log.step * step_tokens / options.tokens, log.elapsed_s / 60 / options.minutes)
            rate = learning_rate_at(along, options)
            for group in optimizer.param_groups:
                group["lr"] = rate
            tokens = torch.from_numpy(sampler.batch_at(log.step)).to(options.device)
            with torch.autocast(torch.device(options.device).type, torch.bfloat16, enabled=options.bf16):
                output = model(input_ids=tokens[:, :-1], output_router_logits=True)
                loss = cross_entropy(output.logits, tokens[:, 1:])
                balance = balance_loss(output.router_logits, shape.top_k)
            (loss + options.balance * balance).backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip)
            optimizer.step()
            optimizer.zero_grad()
            log.step += 1
            log.elapsed_s = before + time.monotonic() - started
            log.finished = log.step * step_tokens >= options.tokens or log.elapsed_s / 60 >= options.minutes
            if log.step % 10 == 0 or log.finished:
                measured = {"loss": loss.item(), "balance": balance.item(), "norm": norm.item()}
                record = {"step": log.step, **measured, "rate": rate}
                log.steps.append(record)
                speed = (log.step - first_step) * step_tokens / (time.monotonic() - started)
                figures = f"step {log.step}, loss {record['loss']:.3f}, {speed:,.0f} tokens/s"
                progress.update(task, completed=min(along, 1.0), figures=figures)
            if log.step % options.validate_every == 0 or log.finished:
                losses = validate(model, held_out, options.device)
                log.elapsed_s = before + time.monotonic() - started
                log.validation.append({"step": log.step, "elapsed_s": log.elapsed_s, **losses})
            if log.step % options.save_every == 0 or log.finished:
                _save_state(folder, model, optimizer, log)
                write_text(folder / LOG_FILE, json.dumps(asdict(log), indent=1) + "\n")
    return model.eval(), log


def _progress() -> Any:
    """Return a progress display on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
