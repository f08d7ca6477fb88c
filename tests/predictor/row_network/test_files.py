"""A network's file and its memory image, of both heads."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from catalog.errors import ForestageError
from predictor.next_layer.predictor import NextLayerPredictor
from predictor.next_use.predictor import NextUsePredictor
from predictor.registry import Saved, load
from predictor.row_network import file
from predictor.row_network.image import read_image
from predictor.row_network.integers import NAMES
from predictor.row_network.program import head_program
from predictor.row_network.sections import checksum, read_section
from tests.learned_samples import PROVENANCE, identified_trace, random_next_use, random_predictor
from traces.safetensors_file import crc32, open_tensors

CONTEXTS = [{}, {"identity_rows": 0, "identities": 0}, {"ngram_tables": ()}, {"nearest": 1, "farthest": 3}]


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_saved_predictor_is_the_same(tmp_path, context):
    predictor = random_predictor(lookahead=2, **context)
    predictor.save(tmp_path / "p.safetensors")
    again = load(tmp_path / "p.safetensors", 2)
    assert load(tmp_path / "p.safetensors").lookahead == predictor.config.nearest
    with pytest.raises(ForestageError, match=r"p.safetensors: trained for lookahead .*, not 4; ask for its own"):
        load(tmp_path / "p.safetensors", 4)
    assert isinstance(again, NextLayerPredictor)
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
        NextLayerPredictor.load(path)
    path.write_bytes(data[:-10])
    with pytest.raises(ForestageError, match=r"p.safetensors"):
        NextLayerPredictor.load(path)


def test_another_file_is_refused(tmp_path):
    identified_trace().save(tmp_path / "t.safetensors")
    with pytest.raises(ForestageError, match="no trained predictor"):
        NextLayerPredictor.load(tmp_path / "t.safetensors")
    with pytest.raises(ForestageError, match="cannot read"):
        NextLayerPredictor.load(tmp_path / "none.safetensors")


def test_tables_of_another_shape_are_refused(tmp_path):
    predictor = random_predictor()
    tables = replace(predictor.tables, bias=predictor.tables.bias[:, :, :-1])
    with pytest.raises(ForestageError, match=r"bias: int32 \[5, 1, 5\] where its configuration says int32 \[5, 1, 6\]"):
        NextLayerPredictor(tables, predictor.config, top_k=3, ranked=True, provenance=predictor.provenance)


@pytest.mark.parametrize("context", CONTEXTS)
def test_an_image_holds_every_table(tmp_path, context):
    predictor = random_predictor(lookahead=2, **context)
    manifest = predictor.export(tmp_path / "image")
    image = read_image(tmp_path / "image")
    assert image.manifest == manifest
    for name in NAMES:
        np.testing.assert_array_equal(getattr(image.tables, name), getattr(predictor.tables, name), err_msg=name)


def test_the_images_layout_is_as_documented(tmp_path):
    """Read by hand, from the manifest alone."""
    predictor = random_predictor()
    predictor.export(tmp_path / "image")
    data = (tmp_path / "image").read_bytes()
    assert data[:8] == b"FORESTIM"
    version, length = struct.unpack("<II", data[8:16])
    manifest = json.loads(data[16 : 16 + length])
    assert version == 3
    assert manifest["size"] == len(data)
    shared, distance = manifest["sections"]
    assert (shared["distance"], distance["distance"]) == (None, 1)
    assert all(offset % 4096 == 0 for offset in (shared["offset"], distance["offset"], *manifest["tables"].values()))
    # The header's beat: magic, version, beats; layers 5, experts 9, top-k 3.
    header = struct.unpack_from("<16I", data, shared["offset"])
    assert header[:3] == (0x494E5346, 3, shared["size"] // 64)
    # One question, rows of identity of one beat, words of 64 lanes; two n-gram tables and two identities; tables of
    # four entries, eight records, rows of one word; n-grams of one and of two tokens.
    assert header[6:8] == (5 << 8 | 9 << 16, 3 | 1 << 8 | 1 << 24)
    assert header[8:11] == (64 | 2 << 17 | 2 << 24, 2 | 3 << 8 | 1 << 16, 1 | 2 << 4)
    # The first block: the memory of rows, a beat a word. Layer 0 has no earlier layer, and none before it in other
    # tokens: of 2 + 3 + 1 + 3 + 3 + 2 + 2 sources 11 exist, and the third of them is the one of the layer above.
    assert struct.unpack_from("<BBHIII", data, shared["offset"] + 64)[:4] == (0, 6, 1, 0)
    row = np.frombuffer(data, np.int8, 64, shared["offset"] + 128 + (2 * 9 + 4) * 64)
    source = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
    exists = [number for number in source if predictor.tables.rows[0, number].any()]
    assert len(exists) == 11
    np.testing.assert_array_equal(row[:6], predictor.tables.rows[0, exists[2], 4])
    assert not row[6:].any()
    # A record of the log: 5 layers · 3 ids, a beat; two tables of four entries, and eight records.
    assert (manifest["key_rotation"], manifest["entry_bytes"], manifest["record_bytes"]) == (7, 16, 64)
    assert (manifest["log_offset"], manifest["text_per_slot"]) == (2 * 4 * 16, 2 * 4 * 16 + 8 * 64)
    # One token's rows for all layers lie together, a beat each.
    assert manifest["identity_offset"] % 4096 == 0
    assert manifest["identity_stride"] == 2 * 5 * 64
    burst = np.frombuffer(data, np.int8, 640, manifest["identity_offset"] + 3 * 640).reshape(2, 5, 64)
    np.testing.assert_array_equal(burst[..., :6], predictor.tables.identity_rows[3])
    assert not burst[..., 6:].any()
    np.testing.assert_array_equal(np.frombuffer(data, np.uint32, 4, manifest["token_offset"]), [10, 11, 12, 13])


def test_a_section_is_read_back_word_by_word(tmp_path):
    predictor = random_predictor(nearest=1, farthest=2, lookahead=2)
    network = predictor.network
    predictor.export(tmp_path / "image", lanes=32)
    image = read_image(tmp_path / "image")
    shared, *distances = (read_section(section) for section in image.sections)
    assert [section.header["distance"] for section in distances] == [1, 2]
    for section in distances:
        program = head_program(
            network.tables, network.config, top_k=3, ranked=True, distance=section.header["distance"], lanes=32,
            origin="test",
        )  # fmt: skip
        contents = program.contents()
        assert contents.keys() == shared.memories.keys() | section.memories.keys()
        for memory, held in contents.items():
            words = {**shared.memories, **section.memories}[memory]
            np.testing.assert_array_equal(words[:, : held.data.shape[1]], held.data, err_msg=memory.name)


def test_a_checksum_by_hand():
    assert checksum(np.array([5, 0xFFFFFFFF, 7], np.uint32)) == (12, 6 + 5 + 12)
    assert checksum(np.zeros(0, np.uint32)) == (1, 0)


def test_a_damaged_section_is_refused(tmp_path):
    path = tmp_path / "image"
    manifest = random_predictor().export(path)
    data = bytearray(path.read_bytes())
    section = bytes(data[manifest.sections[0].offset :][: manifest.sections[0].size])
    for at, message in ((0, "not a section"), (8, "another length"), (40, "checksum differs"), (700, "checksum")):
        broken = bytearray(section)
        broken[at] ^= 1
        with pytest.raises(ValueError, match=message):
            read_section(bytes(broken))
    data[manifest.sections[1].offset + 200] ^= 1
    path.write_bytes(data)
    with pytest.raises(ForestageError, match=r"image: section of distance 1: not what its tables give; export"):
        read_image(path)


def test_identity_rows_of_a_next_use_net_have_no_hardware(tmp_path):
    shape = {"layers": 3, "experts": 6, "top_k": 2}
    predictor = random_next_use(np.random.default_rng(2), **shape, identities=1, identity_rows=3)
    with pytest.raises(ForestageError, match=r"identities: the hardware reads .* for the next-layer head alone; train"):
        predictor.export(tmp_path / "image")
    assert not (tmp_path / "image").exists()


def test_a_bad_image_is_refused(tmp_path):
    path = tmp_path / "image"
    random_predictor().export(path)
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


@pytest.mark.parametrize("context", [{}, {"lookahead": 1, "horizons": (1, 2, 5)}])
def test_a_next_use_predictor_is_kept_and_exported_alike(tmp_path, context):
    shape = {"layers": 3, "experts": 6, "top_k": 2}
    predictor = random_next_use(np.random.default_rng(2), **shape, **context)
    predictor.save(tmp_path / "p.safetensors")
    again = NextUsePredictor.load(tmp_path / "p.safetensors")
    assert again.describe() == predictor.describe()
    assert (again.model, again.trained_on, again.lookahead) == ("test", PROVENANCE.trained_on, predictor.lookahead)
    trace = identified_trace(**shape)
    for (_, mine), (_, kept) in zip(predictor.priority_chunks(trace), again.priority_chunks(trace), strict=True):
        np.testing.assert_array_equal(mine, kept)
    assert file.head_of(tmp_path / "p.safetensors") == "next-use"
    manifest = again.export(tmp_path / "image")
    assert (manifest.head, manifest.questions) == ("next-use", len(predictor.config.horizons))
    image = read_image(tmp_path / "image")
    for name in NAMES:
        mine = getattr(predictor.network.tables, name)
        np.testing.assert_array_equal(getattr(image.tables, name), mine, err_msg=name)


def test_the_same_predictor_gives_the_same_bytes(tmp_path):
    predictor = random_predictor()
    for again in range(4):
        predictor.save(tmp_path / f"{again}.safetensors")
        assert (tmp_path / f"{again}.safetensors").read_bytes() == (tmp_path / "0.safetensors").read_bytes()


def test_another_heads_file_is_refused(tmp_path):
    path = tmp_path / "p.safetensors"
    random_predictor().save(path)
    with pytest.raises(ForestageError, match=r"answers next-layer, and next-use is asked; .*train-next-use` wrote"):
        NextUsePredictor.load(path)
    random_next_use(np.random.default_rng(1), layers=3, experts=6, top_k=2).save(path)
    with pytest.raises(ForestageError, match=r"answers next-use, and next-layer is asked; .*predictor train` wrote"):
        load(path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"format": "forestage-predictor", "version": "1"}, r"version '1' of the format.*train it anew by `forestage"),
        ({"kind": "forestage next-use predictor 2"}, r"earlier format; train it anew by `.*train-next-use`"),
        ({"kind": "forestage next-use predictor 1"}, "earlier format; train it anew"),
        ({"format": "forestage-predictor", "version": "2"}, "no readable 'predictor'"),
        ({"format": "forestage-predictor", "version": "2", "predictor": "[]"}, "'predictor' is no object"),
        ({}, "no trained predictor"),
    ],
)
@pytest.mark.parametrize("kind", [NextLayerPredictor, NextUsePredictor])
def test_files_of_earlier_formats_are_refused_whole(tmp_path, kind, header, message):
    path = tmp_path / "p.safetensors"
    save_file({"rows": np.zeros(3, np.int8)}, path, metadata=header)
    with pytest.raises(ForestageError, match=message) as refusal:
        kind.load(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert "\n" not in str(refusal.value)


def test_a_table_that_is_missing_or_unknown_is_refused(tmp_path):
    path = tmp_path / "p.safetensors"
    predictor = random_predictor()
    predictor.save(path)
    stored = open_tensors(path)
    for name, message in (("chances", "chances: missing"), ("output_bias", "output_bias: missing")):
        arrays = {key: np.array(array) for key, array in stored.tensors.items() if key != name}
        save_file(arrays, tmp_path / "q.safetensors", metadata=stored.metadata)
        with pytest.raises(ForestageError, match=message):
            NextLayerPredictor.load(tmp_path / "q.safetensors")
    arrays = {key: np.array(array) for key, array in stored.tensors.items()}
    sums = {**json.loads(stored.metadata["checksums"]), "more": f"{crc32(arrays['bias']):08x}"}
    metadata = {**stored.metadata, "checksums": json.dumps(sums)}
    save_file({**arrays, "more": arrays["bias"]}, tmp_path / "q.safetensors", metadata=metadata)
    with pytest.raises(ForestageError, match="unknown tensor 'more'"):
        NextLayerPredictor.load(tmp_path / "q.safetensors")


def test_it_is_not_profiled_on_the_spot():
    with pytest.raises(ForestageError, match="forestage predictor train"):
        NextLayerPredictor.fit(identified_trace())
