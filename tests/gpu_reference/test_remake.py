from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from catalog.errors import ForestageError
from gpu_reference import files, remake
from gpu_reference.capturing.shipped_model import CaptureOptions
from gpu_reference.checks.model_replay import replay_check
from gpu_reference.small_moe import SmallMoEShape, load_tokenizer
from gpu_reference.trace_tokens import tokens_of
from gpu_reference.training.corpus import Document
from gpu_reference.training.model_card import domain_distance, sample_texts, write_card
from gpu_reference.training.options import TrainingOptions
from traces import RoutingTrace

OPTIONS = TrainingOptions(context=16, batch=4, tokens=10 * 64, validate_every=5, save_every=5, validation_windows=2)


@pytest.fixture(scope="module")
def made(tiny_shape: SmallMoEShape, documents: list[Document], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything the command makes, from a tiny corpus."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remake, "load_corpus", lambda: documents)
        remake.train_stage(folder / "work", folder / "out", shape=tiny_shape, options=OPTIONS)
        options = CaptureOptions(sequences_per_domain=2, prompt=6, decode=10, batch=3)
        remake.capture_stage(folder / "out", options=options, device="cpu")
    remake.card_stage(folder / "out")
    return folder / "out"


def test_the_stages_make_all_files(made: Path) -> None:
    names = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()}
    checkpoint = {f"checkpoint/{name}" for name in ("config.json", "model.safetensors", "tokenizer.json")}
    assert names == {"trace.safetensors", "training_log.json", "MODEL_CARD.md", "loss_curve.png", *checkpoint}


def test_the_card_has_the_figures(made: Path) -> None:
    card = (made / files.CARD).read_text()
    trace = RoutingTrace.load(made / files.TRACE)
    for section in ("Corpus", "Architecture", "Training", "Routing", "Samples", "Limits", "Remake"):
        assert f"\n## {section}\n" in card
    assert "640 (10 steps of 4 × 16" in card
    assert "4 sequences, 24 prefill and 40 decode tokens" in card
    assert "django-5.2.19" not in card
    assert "| django 5.2.19 | code, prose | BSD-3-Clause | `ad03d8ab" in card
    assert 0 < domain_distance(trace, 0) <= 1
    prompt, continuation = sample_texts(trace, made / files.CHECKPOINT, "prose", 1)[0]
    assert f"{prompt}⟶{continuation}\n~~~~~~" in card
    tokenizer = load_tokenizer(made / files.CHECKPOINT)
    start = trace.sequence_slice(trace.domains.index("prose")).start
    assert prompt == tokenizer.decode(tokens_of(trace, tokenizer)[start : start + 6].tolist())


def test_the_card_is_written_again_alike(made: Path) -> None:
    before = (made / files.CARD).read_bytes()
    write_card(made)
    assert (made / files.CARD).read_bytes() == before


def test_a_card_without_its_log_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ForestageError, match=r"training_log\.json: cannot be read"):
        write_card(tmp_path)
    (tmp_path / files.TRAINING_LOG).write_text("[]")
    with pytest.raises(ForestageError, match="is not a JSON object"):
        write_card(tmp_path)


def test_the_trace_replays_through_the_checkpoint(made: Path) -> None:
    trace = RoutingTrace.load(made / files.TRACE)
    check = replay_check(made / files.CHECKPOINT, trace, 2, sequences=3)
    assert (check.sequences, check.same_experts) == (3, 1.0)
    assert check.relative_error < 1e-3
    shifted = replace(trace, expert_ids=(trace.expert_ids + 1) % 8)
    wrong = replay_check(made / files.CHECKPOINT, shifted, 2, sequences=3)
    assert wrong.same_experts == 0
    assert wrong.relative_error > 0.1


def test_a_layer_or_device_that_is_not_there_is_one_line(made: Path) -> None:
    trace = RoutingTrace.load(made / files.TRACE)
    with pytest.raises(ForestageError, match="layer 5 of the model was not recorded"):
        replay_check(made / files.CHECKPOINT, trace, 5)


def test_the_command_reports_bad_requests_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert remake.main(["--stage", "card", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("forestage: error: ")
    (tmp_path / "file").write_text("")
    arguments: list[Any] = ["--stage", "capture", "--out", tmp_path / "file" / "below"]
    assert remake.main([str(value) for value in arguments]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--minutes", "0"], "options: minutes: Input should be greater than 0"),
        (["--stage", "capture", "--sequences", "-1"], "options: sequences_per_domain: "),
        (["--device", "abacus"], "device: 'abacus' is none that PyTorch knows"),
        (["--device", "cuda:99"], "device: 'cuda:99' is not on this machine; choose cpu"),
    ],
)
def test_bad_options_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert remake.main([*arguments, "--out", str(tmp_path / "out"), "--work", str(tmp_path / "work")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"forestage: error: {message}")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())
