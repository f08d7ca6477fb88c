"""Capture from local model folders: routing against a plain computation, prompts, options, interruption."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from catalog.errors import ForestageError
from gpu_reference.capturing import model as module
from gpu_reference.capturing.folder import ModelFolder
from gpu_reference.capturing.model import ModelCaptureOptions, capture_model
from gpu_reference.capturing.prompts import CapturePrompt, read_prompts
from gpu_reference.capturing.sequences import Sampling
from gpu_reference.capturing.tokens import identity_hashes
from gpu_reference.routers import RouterOutput, RoutingRecorder, check_routing
from gpu_reference.routers.architectures import TRANSFORMERS
from gpu_reference.trace_tokens import token_hashes
from tests.gpu_reference.tiny_models import ARCHITECTURES, KINDS, LAYER_MAPS, TOP_K, hidden_states, plain_routing
from tests.gpu_reference.tiny_models import build as build_tiny
from tests.gpu_reference.tiny_models import routers as tiny_routers
from tests.gpu_reference.tiny_models import save as save_tiny
from traces import RoutingTrace

PROMPTS = [
    CapturePrompt(prompt="def f_1(x):", domain="code"),
    CapturePrompt(prompt="The quick brown fox jumps over the lazy dog.", domain="prose", dataset="animals"),
]
OPTIONS = ModelCaptureOptions(new_tokens=6, max_prompt=9, dtype="float32", temperature=1.0)


def token_of_hash(tokenizer: Any) -> dict[int, int]:
    return {value: token for token, value in enumerate(token_hashes(tokenizer).tolist())}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_routing_is_that_of_a_plain_computation(name: str, tokenizer: Any, tmp_path: Path) -> None:
    """Prefill and decode with a cache, against plain Python on the hidden states of one pass without it."""
    model = save_tiny(name, tokenizer, tmp_path / name)
    out = tmp_path / "out.safetensors"
    capture_model(tmp_path / name, PROMPTS, out, options=OPTIONS)
    trace = RoutingTrace.load(out)
    layers = LAYER_MAPS.get(name, (0, 1, 2))
    assert (trace.metadata.layer_map, trace.metadata.gate_weight_kind) == (layers, KINDS[name])
    assert (trace.experts, trace.top_k, trace.metadata.ranked) == (8, TOP_K, True)
    assert trace.token_hash is not None
    assert trace.gate_weights is not None
    tokens_of = token_of_hash(tokenizer)
    for index, prompt in enumerate(PROMPTS):
        part = trace.sequence_slice(index)
        tokens = [tokens_of[value] for value in trace.token_hash[part].tolist()]
        expected_prompt = tokenizer.encode(prompt.prompt).ids[:9]
        assert tokens[: len(expected_prompt)] == expected_prompt
        assert trace.phase[part].tolist() == [0] * len(expected_prompt) + [1] * (len(tokens) - len(expected_prompt))
        assert trace.position[part].tolist() == list(range(len(tokens)))
        entering = hidden_states(model, tokens)
        for place, layer in enumerate(layers):
            router = tiny_routers(model)[layer]
            for step, hidden in enumerate(entering[layer]):
                expected = plain_routing(name, router, hidden)
                row = trace.expert_ids[part][step, place].tolist()
                weights = trace.gate_weights[part][step, place].astype(float)
                assert set(row) == set(expected)
                assert weights == pytest.approx([expected[expert] for expert in row], rel=2e-3, abs=1e-4)
                assert (np.diff(weights) <= 0).all()
    assert trace.domains == ("code", "prose")
    assert trace.datasets == ("code", "animals")
    assert (np.diff(trace.sequence_offsets) > 9).any(), "choose a seed that generates, or decode is not tested"


@pytest.mark.parametrize("name", ["gpt_oss", "qwen3_moe", "deepseek_v3"])
def test_half_precision_is_recorded_too(name: str, tokenizer: Any, tmp_path: Path) -> None:
    save_tiny(name, tokenizer, tmp_path / name)
    out = tmp_path / "out.safetensors"
    capture_model(tmp_path / name, PROMPTS, out, options=OPTIONS.model_copy(update={"dtype": "bfloat16"}))
    assert RoutingTrace.load(out).tokens > 18


@pytest.mark.parametrize("name", ["deepseek_v2_groups", "deepseek_v3", "gpt_oss", "mixtral"])
def test_a_router_that_lies_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_tiny(name)
    router = tiny_routers(model)[2]
    honest = router.forward

    def lying(hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logits, weights, ids = honest(hidden)
        return logits, weights, (ids + 1) % 8

    monkeypatch.setattr(router, "forward", lying)
    with pytest.raises(ForestageError, match=r"layers\.2\.mlp"), RoutingRecorder(model), torch.no_grad():
        model(input_ids=torch.arange(1, 30)[None])


@pytest.fixture
def folder(tokenizer: Any, tmp_path: Path) -> Path:
    save_tiny("qwen3_moe", tokenizer, tmp_path / "tiny-moe")
    return tmp_path / "tiny-moe"


def test_an_interrupted_capture_goes_on_where_it_was(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [CapturePrompt(prompt=f"prompt number {n}", domain="a") for n in range(4)]
    whole, out = tmp_path / "whole.safetensors", tmp_path / "out.safetensors"
    capture_model(folder, prompts, whole, options=OPTIONS)

    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        capture_model(folder, prompts, out, options=OPTIONS, progress=interrupt)
    assert not out.exists()
    parts = tmp_path / "out.safetensors.parts"
    assert sorted(path.name for path in parts.iterdir()) == [
        "0000000.safetensors", "0000001.safetensors", "capture.json",
    ]  # fmt: skip
    with pytest.raises(ForestageError, match=r"another seed \(0, now 5\)"):
        capture_model(folder, prompts, out, options=OPTIONS.model_copy(update={"seed": 5}))
    with pytest.raises(ForestageError, match=r"another temperature \(1.0, now 0.9\)"):
        capture_model(folder, prompts, out, options=OPTIONS.model_copy(update={"temperature": 0.9}))
    with pytest.raises(ForestageError, match="another prompts file"):
        capture_model(folder, prompts[:3], out, options=OPTIONS)
    generated: list[int] = []
    generate = module.generate

    def counting(*arguments: Any, **options: Any) -> Any:
        generated.append(1)
        return generate(*arguments, **options)

    monkeypatch.setattr(module, "generate", counting)
    capture_model(folder, prompts, out, options=OPTIONS)
    assert len(generated) == 2
    assert out.read_bytes() == whole.read_bytes()
    assert not parts.exists()


def test_the_seed_decides_and_greedy_needs_none(folder: Path, tmp_path: Path) -> None:
    def captured(**changes: Any) -> RoutingTrace:
        out = tmp_path / f"{len(list(tmp_path.iterdir()))}.safetensors"
        capture_model(folder, PROMPTS, out, options=OPTIONS.model_copy(update=changes))
        return RoutingTrace.load(out)

    first, other = captured(seed=1), captured(seed=2)
    assert captured(seed=1).equals(first)
    assert not np.array_equal(first.token_hash, other.token_hash)
    greedy = captured(temperature=0.0, seed=1)
    assert np.array_equal(greedy.token_hash, captured(temperature=0.0, seed=2).token_hash)
    # The likeliest token of each step is what was processed next.
    assert captured(new_tokens=0).phase.max() == 0


def test_greedy_takes_the_likeliest_token(folder: Path, tokenizer: Any, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    capture_model(folder, PROMPTS[:1], out, options=OPTIONS.model_copy(update={"temperature": 0.0}))
    trace = RoutingTrace.load(out)
    assert trace.token_hash is not None
    tokens_of = token_of_hash(tokenizer)
    tokens = [tokens_of[value] for value in trace.token_hash.tolist()]
    model = ModelFolder.open(folder).load_model(dtype="float32", device="cpu")
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([tokens])).logits[0, :, : tokenizer.get_vocab_size()]
    prompt = int((trace.phase == 0).sum())
    assert tokens[prompt:] == logits.argmax(dim=-1)[prompt - 1 : -1].tolist()


def test_weights_have_the_asked_type_or_the_stored_one(folder: Path) -> None:
    opened = ModelFolder.open(folder)
    assert opened.load_model(dtype="bfloat16", device="cpu").dtype == torch.bfloat16
    assert opened.load_model(dtype="auto", device="cpu").dtype == torch.float32


def test_metadata_names_the_model_and_no_path(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    capture_model(folder, PROMPTS[:1], out, options=OPTIONS, licence="MIT")
    metadata = RoutingTrace.load(out).metadata
    assert (metadata.model, metadata.licence, metadata.synthetic) == ("tiny-moe", "MIT", False)
    assert "tiny-moe" in metadata.source
    assert str(tmp_path) not in metadata.source


@pytest.mark.parametrize(
    ("place", "named", "expected"),
    [
        ("gpt-oss-20b", None, "gpt-oss-20b"),
        ("models--someone--their-moe/snapshots/0123abc", None, "someone/their-moe"),
        ("here", "someone/their-moe", "someone/their-moe"),
        ("here", "./local/path", "here"),
        ("here", "/data/model", "here"),
    ],
)
def test_the_name_of_a_folder(place: str, named: str | None, expected: str, tmp_path: Path) -> None:
    assert ModelFolder(tmp_path / place, {"_name_or_path": named}).model_name() == expected


def test_prompts_are_lines_or_objects(tmp_path: Path) -> None:
    text = tmp_path / "prompts.txt"
    text.write_text("first\n\n  second — {}\n", encoding="utf-8")
    assert [(p.prompt, p.domain) for p in read_prompts(text, domain="d")] == [("first", "d"), ("  second — {}", "d")]
    text.write_text("\ufeffform\x0cfeed\r\nline\u2028separator", encoding="utf-8")
    assert [p.prompt for p in read_prompts(text, domain="d")] == ["form\x0cfeed", "line\u2028separator"]
    lines = tmp_path / "prompts.jsonl"
    lines.write_text('\ufeff{"prompt": "a\u2028b"}\n', encoding="utf-8")
    assert [p.prompt for p in read_prompts(lines, domain="d")] == ["a\u2028b"]
    lines.write_text('{"prompt": "a\\nb"}\n{"prompt": "c", "domain": "law", "dataset": "x"}\n', encoding="utf-8")
    first, second = read_prompts(lines, domain="d")
    assert (first.prompt, first.domain, first.dataset) == ("a\nb", "d", None)
    assert (second.domain, second.dataset) == ("law", "x")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"prompt": "x"}\n{"promt": "x"}\n', r"a\.jsonl: line 2: unknown key 'promt'.*'prompt'"),
        ("a.jsonl", b"\n{", r"a\.jsonl: line 2: not valid JSON"),
        ("a.jsonl", b'["x"]', r"line 1: must be an object"),
        ("a.jsonl", b'{"prompt": ""}', r"line 1: prompt"),
        ("a.jsonl", rb'{"prompt": "x", "domain": "\udcff"}', r"line 1: domain"),
        ("a.txt", b"\n \n", r"a\.txt: holds no prompt"),
        ("a.txt", b"\xff", r"a\.txt: cannot read the prompts \(it is not UTF-8\)"),
    ],
)
def test_faulty_prompts_are_refused_by_line(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ForestageError, match=message) as caught:
        read_prompts(tmp_path / name, domain="d")
    assert "\n" not in str(caught.value)


def _remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _write(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


def _drop_a_tensor(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state.pop(next(name for name in state if "gate.weight" in name))
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def _change_config(**values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **values}))

    return change


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_remove("config.json"), r"config\.json: no such file"),
        (_remove("tokenizer.json"), r"tokenizer\.json: no such file"),
        (_remove("model.safetensors"), r"no \*\.safetensors file"),
        (_write("config.json", "{"), r"config\.json: cannot be read"),
        (_write("config.json", "[]"), r"config\.json: must be a JSON object"),
        (_write("tokenizer.json", "{}"), r"tokenizer\.json: not a tokenizer"),
        (_write("model.safetensors", "x"), "the model cannot be loaded"),
        (_drop_a_tensor, r"weights missing .*gate\.weight"),
        (_change_config(model_type="abacus"), "the model cannot be loaded"),
        (_change_config(hidden_size=64), "the model cannot be loaded|weights missing or of another shape"),
    ],
)
def test_a_folder_that_will_not_do_is_one_line(
    damage: Callable[[Path], None], message: str, folder: Path, tmp_path: Path
) -> None:
    damage(folder)
    with pytest.raises(ForestageError, match=message) as caught:
        capture_model(folder, PROMPTS, tmp_path / "out.safetensors", options=OPTIONS)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.safetensors").exists()


def test_bytes_of_tokens_of_either_kind(tokenizer: Any) -> None:
    from tokenizers import AddedToken, Tokenizer, models

    vocabulary = tokenizer.get_vocab_size()
    hashes = identity_hashes(tokenizer, vocabulary + 3)
    assert np.array_equal(hashes[:vocabulary], token_hashes(tokenizer))
    assert not hashes[vocabulary:].any()
    pieces = {"<unk>": 0, "<0x0A>": 1, "▁the": 2, "é": 3, "▁": 4}
    other = Tokenizer(models.BPE(vocab=pieces, merges=[], unk_token="<unk>", byte_fallback=True))
    other.add_special_tokens([AddedToken("<s>", special=True)])
    expected = [b"<unk>", b"\n", b" the", "é".encode(), b" ", b"<s>"]
    assert identity_hashes(other, 6).tolist() == [zlib.crc32(value) for value in expected]


def test_sequences_of_the_same_prompt_differ(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.safetensors"
    capture_model(folder, [PROMPTS[0]] * 2, out, options=OPTIONS)
    trace = RoutingTrace.load(out)
    assert trace.token_hash is not None
    assert not np.array_equal(trace.sequence(0).token_hash, trace.sequence(1).token_hash)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_tokens_without_text_are_not_drawn(temperature: float) -> None:
    logits = torch.tensor([[0.0, 1.0, 50.0, 60.0]])
    generator = torch.Generator().manual_seed(0)
    drawn = {int(Sampling(temperature, frozenset(), vocabulary=2).draw(logits, generator)) for _ in range(20)}
    assert drawn <= {0, 1}
    assert int(Sampling(temperature, frozenset()).draw(logits, generator)) == 3


def test_groups_that_tie_may_be_chosen_either_way() -> None:
    router = tiny_routers(build_tiny("deepseek_v3_raw"))[1]
    router.e_score_correction_bias.zero_()
    # Two groups of four with the same two best scores; one of them is open.
    rule = TRANSFORMERS["DeepseekV3TopkRouter"]
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0, 1.0, 2.0, -2.0, 0.5]])
    for chosen in ([0, 1, 2], [5, 4, 7]):
        ids = torch.tensor([chosen])
        weights = logits.sigmoid().gather(1, ids) * 2.5
        routing = check_routing(rule, router, RouterOutput(logits, ids, weights), "gate")
        assert routing.ids.tolist() == [chosen]
    with pytest.raises(ForestageError, match="the router chose"):
        check_routing(
            rule,
            router,
            RouterOutput(logits, torch.tensor([[0, 1, 5]]), weights),
            "gate",
        )
