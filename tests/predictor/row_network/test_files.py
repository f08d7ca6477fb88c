"""A predictor's file and its memory image."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest

from catalog.errors import ForestageError
from predictor.learned.image import read_image, write_image
from predictor.learned.predictor import LearnedPredictor
from predictor.learned.tables import NAMES
from predictor.registry import Saved, load
from tests.learned_samples import identified_trace, random_predictor

CONTEXTS = [{}, {"identity_rows": 0, "identities": 0}, {"tagged": ()}]


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_saved_predictor_is_the_same(tmp_path, context):
    predictor = random_predictor(lookahead=2, **context)
    predictor.save(tmp_path / "p.safetensors")
    again = load(tmp_path / "p.safetensors")
    assert isinstance(again, LearnedPredictor)
    assert isinstance(again, Saved)
    assert again.describe() == predictor.describe()
    assert (again.lookahead, again.ranked, again.provenance) == (2, True, predictor.provenance)
    trace = identified_trace(layers=5, experts=9)
    np.testing.assert_array_equal(again.score_trace(trace), predictor.score_trace(trace))


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "p.safetensors"
    random_predictor().save(path)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(ForestageError, match=r"p.safetensors: \w+: checksum differs"):
        LearnedPredictor.load(path)
    path.write_bytes(data[:-10])
    with pytest.raises(ForestageError, match=r"p.safetensors"):
        LearnedPredictor.load(path)


def test_another_file_is_refused(tmp_path):
    identified_trace().save(tmp_path / "t.safetensors")
    with pytest.raises(ForestageError, match="not a trained predictor"):
        LearnedPredictor.load(tmp_path / "t.safetensors")
    with pytest.raises(ForestageError, match="cannot read"):
        LearnedPredictor.load(tmp_path / "none.safetensors")


def test_tables_of_another_shape_are_refused(tmp_path):
    predictor = random_predictor()
    tables = replace(predictor.tables, bias=predictor.tables.bias[:, :-1])
    with pytest.raises(ForestageError, match=r"bias: int32 \[5, 5\] where its configuration says int32 \[5, 6\]"):
        LearnedPredictor(tables, predictor.config, top_k=3, lookahead=1, ranked=True, provenance=predictor.provenance)


@pytest.mark.parametrize("context", CONTEXTS)
def test_an_image_holds_every_table(tmp_path, context):
    predictor = random_predictor(lookahead=2, **context)
    manifest = write_image(predictor, tmp_path / "image")
    image = read_image(tmp_path / "image")
    assert image.manifest == manifest
    for name in NAMES:
        np.testing.assert_array_equal(getattr(image.tables, name), getattr(predictor.tables, name), err_msg=name)


def test_the_images_layout_is_as_documented(tmp_path):
    """Read by hand, from the manifest alone."""
    predictor = random_predictor()
    write_image(predictor, tmp_path / "image")
    data = (tmp_path / "image").read_bytes()
    assert data[:8] == b"FORESTIM"
    version, length = struct.unpack("<II", data[8:16])
    manifest = json.loads(data[16 : 16 + length])
    assert version == 1
    assert manifest["size"] == len(data)
    bank = manifest["banks"][0]
    assert all(offset % 64 == 0 for offset in bank["parts"].values())
    # Layer 0 has no earlier layer, and none before it in other tokens: of 2 + 3 + 1 + 3 + 3 + 2 sources, 9 exist.
    assert len(bank["sources"]) == 9
    row = np.frombuffer(data, np.int8, 6, bank["parts"]["rows"] + (2 * 9 + 4) * 6)  # third source, expert 4
    np.testing.assert_array_equal(row, predictor.tables.rows[0, bank["sources"][2], 4])
    assert (manifest["key_rotation"], manifest["entry_bytes"]) == (7, 64)  # 8 + 5 layers · 3 ids
    # One token's rows for all layers lie together, at a multiple of a beat.
    assert manifest["identity_offset"] % 4096 == 0
    assert manifest["identity_stride"] == 64  # 2 identities · 5 layers · 6 = 60 bytes
    burst = np.frombuffer(data, np.int8, 60, manifest["identity_offset"] + 3 * 64)
    np.testing.assert_array_equal(burst.reshape(2, 5, 6), predictor.tables.identity_rows[3])
    np.testing.assert_array_equal(np.frombuffer(data, np.uint32, 4, manifest["token_offset"]), [10, 11, 12, 13])


def test_a_bad_image_is_refused(tmp_path):
    path = tmp_path / "image"
    write_image(random_predictor(), path)
    data = path.read_bytes()
    for text, changed in (
        ("not a memory image", b"x" + data[1:]),
        ("version 7", data[:8] + b"\7" + data[9:]),
        ("manifest", data[:20] + b"\0" + data[21:]),
        ("bytes where its manifest says", data[:-1]),
    ):
        path.write_bytes(changed)
        with pytest.raises(ForestageError, match=text):
            read_image(path)


def test_it_is_not_profiled_on_the_spot():
    with pytest.raises(ForestageError, match="forestage predictor train"):
        LearnedPredictor.fit(identified_trace())
