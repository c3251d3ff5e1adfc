"""Shards and the order of training: verification, every position once, the same for any number of processes."""

import json

import numpy as np
import pytest
from loop import with_data
from presets import DATA, InputError
from pretrain_tiny import make_shards, tiny_model
from shards import (
    Order,
    Reader,
    Split,
    accumulation_steps,
    check_length,
    fitting_micro_batch,
    read_manifest,
    tokenizer_folder,
)


def batches(split, T, total, micro_batch, world_size, steps, seed=1, start=0):
    """Rows of the global batches, each a set, as the processes together read them."""
    readers = [Reader(split, T, micro_batch, rank, world_size, seed, start) for rank in range(world_size)]
    accumulation = total // (micro_batch * world_size)
    return [sorted(tuple(map(int, (*x, y[-1]))) for _ in range(accumulation) for reader in readers
                   for x, y in zip(*reader.next(), strict=True)) for _ in range(steps)]


@pytest.mark.parametrize(("N", "T"), [(10, 4), (1600, 16), (97, 8), (16, 16), (100, 7)])
def test_every_position_is_a_target_once_per_epoch(N, T):
    order = Order(N, T, seed=3)
    epochs = 5
    starts = [order.start(n) for n in range(order.first(epochs))]
    assert sorted(starts) == [n * T for n in range(len(starts))]  # a permutation of the unrolled circle
    covered = np.bincount([(s + i) % N for s in starts for i in range(T)], minlength=N)
    assert covered.min() >= epochs
    assert covered.sum() - epochs * N < T  # the last sequence may reach into the next turn
    for epoch in range(epochs):
        inside = [s for n, s in enumerate(starts) if order.epoch_of(n) == epoch]
        assert all(epoch * N <= s < (epoch + 1) * N for s in inside)


def test_order_depends_on_the_seed_and_the_epoch():
    def first(seed, epoch):
        order = Order(1600, 16, seed)
        return [order.start(order.first(epoch) + n) % 1600 for n in range(100)]

    assert first(1, 0) == first(1, 0) != first(2, 0)
    assert first(1, 0) != first(1, 1)
    assert sorted(first(1, 0)) == sorted(first(2, 0))


def test_a_curriculum_comes_first_and_nothing_is_lost():
    order = Order(1600, 16, 3, curriculum=200)
    starts = [order.start(n) for n in range(200)]
    assert sorted(starts[:13]) == list(range(0, 200, 16)) != starts[:13]
    assert sorted(starts) == list(range(0, 3200, 16))
    plain = Order(1600, 16, 3)
    assert starts[100:] == [plain.start(n) for n in range(100, 200)]  # the second epoch is shuffled as ever


def test_sequences_across_the_ends_of_shards(tmp_path):
    split = Split(make_shards(tmp_path, train=(70, 1, 53)), "train")
    whole = np.concatenate([np.load(tmp_path / f"train_{i:06d}.npy") for i in range(3)]).astype(np.int64)
    circle = np.concatenate([whole] * 4)
    for start in range(0, 300, 7):
        x, y = split.sequences([start], 60)
        assert x[0].tolist() == circle[start % 124:][:60].tolist()
        assert y[0].tolist() == circle[start % 124:][1:61].tolist()


@pytest.mark.parametrize("micro_batch", [1, 2])
def test_the_same_batches_for_any_number_of_processes(tmp_path, micro_batch):
    split = Split(make_shards(tmp_path, train=(130, 211)), "train")
    expected = batches(split, 8, 8, 1, 1, steps=14)  # more than two epochs
    for world_size in (1, 2, 4):
        assert batches(split, 8, 8, micro_batch, world_size, steps=14) == expected
    assert batches(split, 8, 8, 2, 2, steps=4, start=80) == expected[10:]  # from the saved position


def test_batch_arithmetic():
    assert accumulation_steps(524288, 16, 1024, 8) == 4
    assert [fitting_micro_batch(2048, 4, 512, processes) for processes in (1, 2, 3, 4, 8)] == [4, 2, 1, 1, 1]
    with pytest.raises(InputError, match="98,304 or 131,072"):
        accumulation_steps(100_000, 16, 1024, 2)
    with pytest.raises(InputError, match=r"nearest that are: 32,768$"):
        accumulation_steps(10, 16, 1024, 2)


def test_data_shorter_than_a_batch(tmp_path):
    split = Split(make_shards(tmp_path, train=(100,)), "train")
    check_length(split, 100)
    with pytest.raises(InputError, match=r"holds 100 tokens, one step takes 101.*at most 100"):
        check_length(split, 101)


def edit(folder, **changes):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_shards_are_verified(tmp_path):
    def fresh(name):
        return make_shards(tmp_path / name)

    folder = fresh("hash")
    shard = folder / "train_000001.npy"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    split = Split(folder, "train")
    split.verify(part=0, parts=2)  # the damaged one is the other process's
    with pytest.raises(InputError, match=r"train_000001.npy has another sha256"):
        split.verify(part=1, parts=2)

    folder = fresh("short")
    shard = folder / "train_000000.npy"
    shard.write_bytes(shard.read_bytes()[:-2])
    with pytest.raises(InputError, match=r"train_000000.npy is damaged"):
        Split(folder, "train")

    folder = fresh("length")
    np.save(folder / "train_000000.npy", np.zeros(699, np.uint16))
    with pytest.raises(InputError, match=r"holds 699 tokens, its manifest says 700"):
        Split(folder, "train")

    folder = fresh("dtype")
    np.save(folder / "train_000000.npy", np.zeros(700, np.int32))
    with pytest.raises(InputError, match=r"holds 1-d int32, its manifest says uint16"):
        Split(folder, "train")

    folder = fresh("pickle")
    np.save(folder / "train_000000.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"damaged"):
        Split(folder, "train")

    folder = fresh("archive")
    np.savez(tmp_path / "archive.npz", np.zeros(700, np.uint16))
    (tmp_path / "archive.npz").rename(folder / "train_000000.npy")
    with pytest.raises(InputError, match=r"damaged"):
        Split(folder, "train")

    folder = fresh("id")
    edit(folder, vocab_size=60)
    with pytest.raises(InputError, match=r"train_00000\d.npy: token id 60 at position \d+ is not below vocab_size 60"):
        Split(folder, "train").verify()


def test_manifest_is_checked(tmp_path):
    with pytest.raises(InputError, match=r"manifest.json does not exist.*bpe/run.py encode"):
        read_manifest(tmp_path)
    folder = make_shards(tmp_path / "a")
    edit(folder, dtype="float64")
    with pytest.raises(InputError, match="float64"):
        Split(folder, "train")
    (folder / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        Split(folder, "train")
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="lacks dtype, end_of_text"):
        Split(folder, "train")
    folder = make_shards(tmp_path / "b")
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "tokenizer.json").write_text("{}")
    edit(folder, tokenizer=str(tokenizer))
    with pytest.raises(InputError, match=r"tokenizer.json is not the tokenizer that made"):
        Split(folder, "train")


def test_the_tokenizer_built_into_bpe_lies_where_export_writes_it(tmp_path):
    """`encode` names it gpt2, without a folder."""
    assert tokenizer_folder({"tokenizer": "gpt2"}) == DATA / "tokenizer" / "gpt2"
    assert tokenizer_folder({"tokenizer": "tokenizer/mine"}) == DATA / "tokenizer" / "mine"


def test_damaged_manifests_name_the_file_and_the_field(tmp_path):
    folder = make_shards(tmp_path)
    path = folder / "manifest.json"
    whole = json.loads(path.read_text())
    cases = [([], "manifest.json is '\\[\\]', not an object"),
             ({**whole, "shards": []}, "shards is '\\[\\]', not an object"),
             ({**whole, "shards": {"train": 3}}, "shards of 'train' are '3', not a list"),
             ({**whole, "shards": {"train": [3]}}, "a shard of 'train' is '3', not an object"),
             ({**whole, "tokenizer": None}, "tokenizer is 'None', not a text"),
             ({**whole, "vocab_size": "61"}, "vocab_size is '61', not a whole number"),
             ({**whole, "end_of_text": "x"}, "end_of_text is 'x', not a whole number or null"),
             ({**whole, "end_of_text": 61}, "end_of_text 61 is no token of 61"),
             ({**whole, "end_of_text": -3}, "end_of_text -3 is no token of 61")]
    for field in ("bytes", "file", "sha256", "tokens"):
        entry = {name: value for name, value in whole["shards"]["train"][0].items() if name != field}
        cases.append(({**whole, "shards": {"train": [entry]}}, f"a shard of 'train' lacks {field}"))
    entry = whole["shards"]["train"][0] | {"bytes": 0}
    cases.append(({**whole, "shards": {"train": [entry]}}, "bytes of split 'train' are 0"))
    path.write_text("[" * 100_000)
    with pytest.raises(InputError, match="is not JSON"):
        Split(folder, "train")
    for manifest, message in cases:
        path.write_text(json.dumps(manifest))
        with pytest.raises(InputError, match=f"manifest.json.*{message}" if manifest else message):
            Split(folder, "train")


def test_the_length_of_documents(tmp_path):
    split = Split(make_shards(tmp_path / "d", train=(20,)), "train")
    # documents of 2, 5 and 13 tokens, the last without an end
    split.shards[0] = np.array([5, 0, 5, 5, 5, 5, 0, *[5] * 13], np.uint16)
    assert split.document_length(100) == round((2 * 2 + 5 * 5 + 13 * 13) / 20)
    assert split.document_length(8) == round((2 * 2 + 5 * 5 + 13 * 8) / 20)


def test_a_document_mask_needs_the_end_of_a_document(tmp_path):
    split = Split(make_shards(tmp_path), "train")
    split.manifest["end_of_text"] = None
    assert with_data(tiny_model(), split).end_of_text is None
    with pytest.raises(InputError, match=r"--document_mask: .*manifest.json names no end_of_text"):
        with_data(tiny_model(document_mask=True), split)
