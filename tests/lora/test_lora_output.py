"""What finetune_output.py refuses to write over, and what a full disk leaves."""

import io
from pathlib import Path

import pytest
import torch
from atomic_file import write_atomically
from finetune_output import check_places, save_model, save_template
from finetune_settings import InputError, Settings
from safetensors import SafetensorError


def folder(path: Path, *names) -> str:
    """A folder with empty files of these names and the template that every result has."""
    path.mkdir()
    for name in names:
        (path / name).touch()
    save_template(path, "seed")
    return str(path)


def test_a_model_replaces_nothing_but_a_model(tmp_path):
    adapter = folder(tmp_path / "adapter", "adapter_config.json")
    with pytest.raises(InputError, match="holds something else"):
        check_places(Settings(model_out=adapter))
    model = folder(tmp_path / "model", "config.json", "model.safetensors")
    check_places(Settings(model_out=model))
    folder(tmp_path / "model" / "notes")
    with pytest.raises(InputError, match="holds something else"):
        check_places(Settings(model_out=model))


def test_results_that_would_replace_each_other_are_refused(tmp_path):
    out = str(tmp_path / "out")
    for flags in ({"adapter_out": out}, {"adapter_out": f"{out}/adapter"}, {"output_dir_name": out},
                  {"output_dir_name": f"{out}/run"}):
        with pytest.raises(InputError, match="itself, or around it"):
            check_places(Settings(model_out=out, **flags))
    check_places(Settings(model_out=out, adapter_out=str(tmp_path / "other"), output_dir_name=str(tmp_path / "run")))


def test_an_adapter_is_not_put_into_a_model(tmp_path):
    with pytest.raises(InputError, match="holds a model"):
        check_places(Settings(adapter_out=folder(tmp_path / "model", "config.json")))


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for flag in ("adapter_out", "model_out"):
        with pytest.raises(InputError, match=f"--{flag} .*file/a: its folder cannot be made: it is a file"):
            check_places(Settings(**{flag: str(tmp_path / "file" / "a")}))
    check_places(Settings(adapter_out=str(tmp_path / "new" / "a")))
    assert (tmp_path / "new").is_dir()


class FullDisk(io.BytesIO):
    def write(self, data):
        raise OSError(28, "No space left on device")


def test_a_full_disk_is_an_error_that_names_the_path(tmp_path, make_model, tokenizer, monkeypatch):
    def fail(folder):
        folder.mkdir()
        raise SafetensorError("No space left on device")

    with pytest.raises(OSError, match=r"No space left on device: .*checkpoint\.pt"):
        write_atomically(tmp_path / "checkpoint.pt", lambda file: torch.save(torch.zeros(9), FullDisk()))
    model = make_model("llama")
    monkeypatch.setattr(model, "save_pretrained", fail)
    with pytest.raises(OSError, match="model could not be written: No space"):
        save_model(model, tokenizer, tmp_path / "model", "seed")
    assert list(tmp_path.iterdir()) == []
