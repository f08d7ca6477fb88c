import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from catalog.errors import ForestageError
from gpu_reference.small_moe import SmallMoEShape
from gpu_reference.training.batches import TokenStream, WindowSampler, validation_windows
from gpu_reference.training.corpus import DOMAINS
from gpu_reference.training.options import TrainingOptions, learning_rate_at
from gpu_reference.training.train import balance_loss, train

Streams = tuple[dict[str, TokenStream], dict[str, TokenStream]]
OPTIONS = TrainingOptions(
    context=16, batch=4, tokens=12 * 64, validate_every=6, save_every=6, validation_windows=4, learning_rate=1e-2
)


def _weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_training_learns_and_logs(tiny_shape: SmallMoEShape, streams: Streams, tmp_path: Path) -> None:
    options = OPTIONS.model_copy(update={"tokens": 60 * 64})
    _, log = train(*streams, tmp_path, shape=tiny_shape, options=options)
    assert log.finished
    assert log.step == 60
    assert [record["step"] for record in log.validation] == list(range(6, 61, 6))
    for domain in DOMAINS:
        assert log.validation[-1][domain] < log.validation[0][domain] - 1.0
    assert json.loads((tmp_path / "training_log.json").read_text())["validation"] == log.validation


def test_an_interrupted_run_ends_in_the_same_weights(
    tiny_shape: SmallMoEShape, streams: Streams, tmp_path: Path
) -> None:
    whole, _ = train(*streams, tmp_path / "whole", shape=tiny_shape, options=OPTIONS)
    train(*streams, tmp_path / "parts", shape=tiny_shape, options=OPTIONS, stop_after_steps=6)
    resumed, log = train(*streams, tmp_path / "parts", shape=tiny_shape, options=OPTIONS)
    assert (log.step, log.resumed, log.finished) == (12, 1, True)
    for name, value in _weights(whole).items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_the_seed_decides(tiny_shape: SmallMoEShape, streams: Streams, tmp_path: Path) -> None:
    first, _ = train(*streams, tmp_path / "a", shape=tiny_shape, options=OPTIONS)
    other, _ = train(*streams, tmp_path / "b", shape=tiny_shape, options=OPTIONS.model_copy(update={"seed": 1}))
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_a_state_of_other_options_is_refused(tiny_shape: SmallMoEShape, streams: Streams, tmp_path: Path) -> None:
    train(*streams, tmp_path, shape=tiny_shape, options=OPTIONS, stop_after_steps=6)
    with pytest.raises(ForestageError, match=r"state\.pt: learning_rate was 0\.01 and is now 0\.02"):
        train(*streams, tmp_path, shape=tiny_shape, options=OPTIONS.model_copy(update={"learning_rate": 0.02}))
    with pytest.raises(ForestageError, match="another shape"):
        train(*streams, tmp_path, shape=tiny_shape.model_copy(update={"experts": 4}), options=OPTIONS)
    (tmp_path / "state.pt").write_bytes(b"no state")
    with pytest.raises(ForestageError, match="cannot be resumed"):
        train(*streams, tmp_path, shape=tiny_shape, options=OPTIONS)


def test_wall_clock_ends_training(tiny_shape: SmallMoEShape, streams: Streams, tmp_path: Path) -> None:
    _, log = train(
        *streams, tmp_path, shape=tiny_shape, options=OPTIONS.model_copy(update={"tokens": 10**12, "minutes": 0.5 / 60})
    )
    assert log.finished
    assert 0.5 <= log.elapsed_s < 10


def test_learning_rate_rises_then_falls() -> None:
    options = TrainingOptions(warmup=0.1)
    rates = [learning_rate_at(along, options) for along in np.linspace(0, 1, 101)]
    assert max(rates) == pytest.approx(options.learning_rate)
    assert np.argmax(rates) == 10
    assert rates[0] > 0
    assert rates[-1] == pytest.approx(options.final_learning_rate)
    assert (np.diff(rates[10:]) <= 0).all()


def test_balance_is_one_where_level_and_larger_where_one_layer_is_skewed() -> None:
    level = torch.eye(8).repeat(4, 1) * 1e-3
    assert balance_loss((level, level), top_k=1).item() == pytest.approx(1.0, abs=1e-3)
    skewed = torch.zeros(32, 8)
    skewed[:, 0] = 9.0
    mirrored = torch.zeros(32, 8)
    mirrored[:, 1] = 9.0
    assert balance_loss((skewed, mirrored), top_k=1).item() > 7.5


def test_every_window_once_an_epoch() -> None:
    tokens = {domain: TokenStream(np.arange(1000, dtype=np.uint16), np.zeros(1, np.int64)) for domain in DOMAINS}
    sampler = WindowSampler(tokens, context=10, batch=2, seed=0)
    windows = (1000 - 10) // 10 - 1
    epochs = [np.stack([sampler.batch_at(e * windows + i) for i in range(windows)]) for e in range(2)]
    for rows in epochs:
        assert rows.shape == (windows, 2, 11)
        assert (np.diff(rows, axis=-1) == 1).all()
        for domain in range(2):
            assert len(np.unique(rows[:, domain, 0])) == windows
            assert len(np.unique(rows[:, domain, 0] % 10)) == 1
    assert not np.array_equal(*epochs)
    assert np.array_equal(sampler.batch_at(3), WindowSampler(tokens, context=10, batch=2, seed=0).batch_at(3))


def test_windows_to_validate_with_are_spread_from_the_first_to_the_last() -> None:
    stream = TokenStream(np.arange(103, dtype=np.uint16), np.zeros(1, np.int64))
    for count, starts in ((1, [0]), (2, [0, 90]), (4, [0, 30, 60, 90]), (99, [10 * n for n in range(10)])):
        windows = validation_windows(stream, context=10, count=count)
        assert windows.tolist() == [list(range(start, start + 11)) for start in starts]


def test_epochs_are_counted_by_domain() -> None:
    lengths = dict(zip(DOMAINS, (1000, 500), strict=True))
    tokens = {
        domain: TokenStream(np.arange(length, dtype=np.uint16), np.zeros(1, np.int64))
        for domain, length in lengths.items()
    }
    sampler = WindowSampler(tokens, context=10, batch=6, seed=0)
    assert list(sampler.epochs_at(0).values()) == [0, 0]
    assert list(sampler.epochs_at(25).values()) == [25 * 3 * 10 / 1000, 25 * 3 * 10 / 500]


def test_odd_batches_and_short_streams_are_refused() -> None:
    tokens = {domain: TokenStream(np.arange(30, dtype=np.uint16), np.zeros(1, np.int64)) for domain in DOMAINS}
    with pytest.raises(ForestageError, match="batch: 3 is not a multiple"):
        WindowSampler(tokens, context=10, batch=3, seed=0)
    with pytest.raises(ForestageError, match="shorter than two windows"):
        WindowSampler(tokens, context=100, batch=2, seed=0)
    with pytest.raises(ForestageError, match="fewer than one window"):
        validation_windows(tokens["code"], context=100, count=3)
