"""Paths of the shipped model, trace and card."""

from pathlib import Path

SHIPPED = Path(__file__).parent / "shipped"

CHECKPOINT = "checkpoint"
TRACE = "trace.safetensors"
TRAINING_LOG = "training_log.json"
CARD = "MODEL_CARD.md"
LOSS_CURVE = "loss_curve.png"

SHIPPED_CHECKPOINT = SHIPPED / CHECKPOINT
SHIPPED_TRACE = SHIPPED / TRACE
