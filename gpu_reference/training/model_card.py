"""Generate the model card from the training log, the checkpoint and the trace, so that it cannot disagree with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from catalog.errors import ForestageError
from catalog.files import write_text
from gpu_reference import files
from gpu_reference.small_moe import WEIGHTS_FILE, load_tokenizer
from gpu_reference.trace_tokens import token_bytes, tokens_of
from gpu_reference.training.corpus import DOMAINS, SELECTIONS, SOURCES
from gpu_reference.training.loss_curve import draw_loss_curve
from traces import DECODE, PREFILL, RoutingTrace
from traces.statistics import RoutingStatistics, statistics

SAMPLES_PER_DOMAIN = 2
REMAKE = "python -m gpu_reference.remake"

_LIMITS = f"""\
- It is a small model, trained briefly: fluent for a clause, without knowledge or sense. It exists to route tokens as a
  trained mixture of experts does, and its checkpoint and trace to be small enough to ship.
- Documents are held out by file (books: by part), and so the validation loss says how well it continues other files of
  the *same* projects and books, not of others.
- The prose is technical documentation for the most part, one seventh is three books and a play, of 1599 to 1992.
- Its routing is that of a small model after a few million tokens, held level by a load-balancing loss. Figures on this
  trace do not stand for those of larger models, trained longer.
- Text generated at a temperature has more unlikely tokens than text read: the prompts are real text, the rest is not.
- A second run of `{REMAKE}` gives the same corpus, tokenizer and batches, but not the same weights bit for bit: another
  machine takes sums in another order, and a wall-clock budget ends elsewhere.
"""


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ForestageError(f"{path}: cannot be read ({error.strerror}); make it with `{REMAKE}`") from error
    except ValueError as error:
        raise ForestageError(f"{path}: is not JSON ({error}); make it again with `{REMAKE}`") from error
    if not isinstance(value, dict):
        raise ForestageError(f"{path}: is not a JSON object; make it again with `{REMAKE}`")
    return value


def _table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table: first column left-aligned, the others right-aligned."""
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, rule, *rows]) + "\n"


def _corpus_section(log: dict[str, Any]) -> str:
    rows = []
    for source in SOURCES:
        domains = ", ".join(dict.fromkeys(s.domain for s in SELECTIONS if s.source == source))
        rows.append([f"{source.name} {source.version}", domains, source.licence, f"`{source.sha256}`"])
    tokens = log["corpus_tokens"]
    counts = [[domain, f"{tokens['train'][domain]:,}", f"{tokens['validation'][domain]:,}"] for domain in DOMAINS]
    rule = "| --- | --- | --- | --- |"
    sources = "\n".join(
        [
            "| source distribution | used for | licence | SHA-256 |",
            rule,
            *("| " + " | ".join(row) + " |" for row in rows),
        ]
    )
    return (
        "Obtained with `pip download --no-deps --no-binary :all:`, verified by hash, cleaned by "
        "`gpu_reference/training/cleaning.py` (prose: markup, code samples, tables and titles left out).\n\n"
        f"{sources}\n\n{_table(['tokens', 'training', 'held out'], counts)}"
    )


def _architecture_section(log: dict[str, Any], checkpoint: Path) -> str:
    shape = log["shape"]
    facts = [
        ("architecture", "`Qwen3MoeForCausalLM`"),
        ("parameters", f"{log['parameters']:,}"),
        ("layers, all of them MoE", shape["layers"]),
        ("experts a layer", shape["experts"]),
        ("experts a token", f"{shape['top_k']}, gates renormalised"),
        ("hidden size", shape["hidden"]),
        ("intermediate size of an expert", shape["intermediate"]),
        ("heads × width", f"{shape['heads']} × {shape['head_dim']}"),
        ("key and value heads", shape["kv_heads"]),
        ("vocabulary", f"{shape['vocabulary']:,}, byte-level BPE, embedding tied"),
        ("weights on disk", f"bfloat16, {(checkpoint / WEIGHTS_FILE).stat().st_size / 1e6:.1f} MB"),
    ]
    return _table(["property", "value"], [[name, str(value)] for name, value in facts])


def _training_section(log: dict[str, Any]) -> str:
    options, machine, last = log["options"], log["machine"], log["validation"][-1]
    tokens = log["step"] * options["batch"] * options["context"]
    batches = f"{log['step']:,} steps of {options['batch']} × {options['context']}, half of each domain"
    processor = machine["gpu"] or f"{machine['cores']} CPU cores ({machine['processor']})"
    rates = f"{options['learning_rate']:g} → {options['final_learning_rate']:g} (cosine)"
    balance = log["steps"][-1]["balance"]
    facts = [
        ("tokens seen", f"{tokens:,} ({batches})"),
        ("wall clock", f"{log['elapsed_s'] / 60:.1f} min, {tokens / log['elapsed_s']:,.0f} tokens/s over all"),
        ("machine", f"{processor}, torch {machine['torch']}, transformers {machine['transformers']}"),
        ("optimiser", f"AdamW, {rates}, seed {options['seed']}"),
        ("load-balancing loss", f"weight {options['balance']:g}, at the end {balance:.3f} (level: 1)"),
    ]
    for domain in DOMAINS:
        value = f"{last[domain]:.3f} nats a token (perplexity {np.exp(last[domain]):.1f})"
        facts.append((f"validation loss, {domain}", value))
    return _table(["property", "value"], [[name, value] for name, value in facts])


def _statistics_row(name: str, figures: RoutingStatistics) -> list[str]:
    ratios = (figures.over_uniform, figures.over_popularity, figures.over_sequence)
    loads = (figures.load_entropy, figures.uniform_load_entropy)
    hottest = (figures.hottest_over_mean, figures.uniform_hottest_over_mean)
    values = (figures.temporal_overlap, *ratios, *loads, *hottest)
    return [name, *("—" if value is None else f"{value:.3f}" for value in values)]


def domain_distance(trace: RoutingTrace, layer: int) -> float:
    """Return the total-variation distance of the two domains' expert loads in a layer: 0 if equal, 1 if disjoint."""
    of_token = np.repeat(np.asarray(trace.domains), np.diff(trace.sequence_offsets))
    loads = []
    for domain in DOMAINS:
        chosen = trace.expert_ids[of_token == domain, layer].ravel()
        loads.append(np.bincount(chosen, minlength=trace.experts) / max(len(chosen), 1))
    return float(np.abs(loads[0] - loads[1]).sum() / 2)


def _routing_section(trace: RoutingTrace) -> str:
    figures = statistics(trace)
    ratios = ["over K²/N", "over shuffled", "over shuffled in sequence"]
    header = ["", "temporal overlap", *ratios, "load entropy", "null", "hottest / mean", "null"]
    rows = [_statistics_row("all", figures.overall)]
    rows += [_statistics_row(f"domain: {domain}", value) for domain, value in figures.by_domain.items()]
    rows += [_statistics_row(f"layer {layer}", value) for layer, value in enumerate(figures.by_layer)]
    distances = ", ".join(f"{domain_distance(trace, layer):.2f}" for layer in range(trace.layers))
    decode, prefill = (int((trace.phase == phase).sum()) for phase in (DECODE, PREFILL))
    return (
        f"{trace.sequences} sequences, {prefill:,} prefill and {decode:,} decode tokens; recorded by hooks on the "
        "routers while the model generated from held-out prompts, every id checked against the router's logits.\n"
        f"Recorded with: {trace.metadata.source}.\n\n"
        f"Temporal overlap is the number of experts that consecutive tokens share, of {trace.top_k}; K²/N = "
        f"{figures.uniform_overlap:.3f} is what choices would share that are independent and uniform. The other two "
        "ratios are to the same tokens shuffled: over all of the row, which keeps each expert's popularity, and within "
        "each sequence, which destroys order alone. Load entropy is 1 where all experts of a layer are used alike; its "
        "null and that of hottest / mean are of as many tokens that choose independently and uniformly.\n\n"
        f"{_table(header, rows)}\n"
        "Distance between the two domains' expert loads (total variation, 0 alike, 1 disjoint), layer by layer: "
        f"{distances}.\n"
    )


def sample_texts(trace: RoutingTrace, checkpoint: Path, domain: str, count: int) -> list[tuple[str, str]]:
    """Return (prompt, continuation) of the first ``count`` sequences of a domain, decoded from the token hashes.

    Raises:
        ForestageError: if the trace has no token hashes or they are not of this tokenizer.
    """
    tokenizer = load_tokenizer(checkpoint)
    pieces, tokens = token_bytes(tokenizer), tokens_of(trace, tokenizer)
    texts = []
    for index in [i for i, name in enumerate(trace.domains) if name == domain][:count]:
        part = trace.sequence_slice(index)
        prompt, continuation = (
            b"".join(pieces[token] for token in tokens[part][trace.phase[part] == phase]).decode(errors="replace")
            for phase in (PREFILL, DECODE)
        )
        texts.append((prompt, continuation))
    return texts


def _samples_section(trace: RoutingTrace, checkpoint: Path) -> str:
    parts = ["The first sequences of the trace, read back from its token hashes; `⟶` marks where the prompt ends.\n"]
    for domain in DOMAINS:
        for prompt, continuation in sample_texts(trace, checkpoint, domain, SAMPLES_PER_DOMAIN):
            parts.append(f"### {domain}\n\n~~~~~~text\n{prompt}⟶{continuation}\n~~~~~~\n")
    return "\n".join(parts)


def write_card(folder: Path) -> None:
    """Write ``MODEL_CARD.md`` and ``loss_curve.png`` in ``folder`` from the log, checkpoint and trace in it.

    Raises:
        ForestageError: if one of them is missing or malformed.
    """
    checkpoint = folder / files.CHECKPOINT
    log = _read_json(folder / files.TRAINING_LOG)
    trace = RoutingTrace.load(folder / files.TRACE)
    draw_loss_curve(log, folder / files.LOSS_CURVE)
    sections = {
        "Corpus": _corpus_section(log),
        "Architecture": _architecture_section(log, checkpoint),
        "Training": f"{_training_section(log)}\n![Loss against tokens]({files.LOSS_CURVE})\n",
        "Routing": _routing_section(trace),
        "Samples": _samples_section(trace, checkpoint),
        "Limits": _LIMITS,
        "Remake": (
            f"`{REMAKE}` fetches the corpus, trains, captures and writes this card: one to two hours on two CPU cores; "
            "`--device cuda` uses a GPU (written for one, not yet tried on one). It continues an interrupted run.\n"
        ),
    }
    body = "\n".join(f"## {title}\n\n{text}" for title, text in sections.items())
    write_text(
        folder / files.CARD,
        f"# {trace.metadata.model}\n\n<!-- Written by gpu_reference/training/model_card.py; do not edit. -->\n\n"
        "A mixture-of-experts language model, trained from scratch on source code and English prose, whose recorded "
        "routing is Forestage's default trace.\n"
        f"Licence of the weights and the trace: {trace.metadata.licence}.\n\n{body}",
    )
