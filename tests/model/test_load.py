"""Opening models, and everything that is none."""

import json

import pytest
import torch

import patchclamp as pc
import zoo
from patchclamp.core.errors import NotAModel, UnsafeWeights


@pytest.fixture
def folder(tmp_path):
    zoo.build("gpt2").save_pretrained(tmp_path / "small")
    return tmp_path / "small"


def test_a_folder_opens_as_the_class_it_was_saved_from(folder, ids):
    model = pc.load(folder)
    assert type(model.hf).__name__ == "GPT2LMHeadModel" and model.name == "small" and model.tokenizer is None
    assert torch.equal(model.run(ids).logits, pc.load(zoo.build("gpt2")).run(ids).logits)


def test_weights_keep_their_dtype(tmp_path, ids):
    zoo.build("llama").to(torch.bfloat16).save_pretrained(tmp_path)
    model = pc.load(tmp_path)
    assert model.dtype == torch.bfloat16
    assert pc.load(tmp_path, dtype=torch.float32).dtype == torch.float32
    run = model.run(ids, keep=model.sites)
    assert torch.equal(run.logits, model.hf(ids, use_cache=False).logits) or "attn.pattern" in " ".join(model.sites)


def test_a_module_in_memory_is_used_in_place(gpt2):
    hf = zoo.build("gpt2")
    assert pc.load(hf).hf is hf


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("./nowhere", "there is no folder ./nowhere"),
        ("/no/such/place", "there is no folder"),
        ("specimen:twon", "there is no specimen"),
    ],
)
def test_what_is_not_there(source, says):
    with pytest.raises(NotAModel, match=says):
        pc.load(source)


def test_folders_that_are_no_models(tmp_path, folder):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("x")
    with pytest.raises(NotAModel, match=r"it has no config.json. It holds a.txt"):
        pc.load(tmp_path / "notes")
    with pytest.raises(NotAModel, match="is a file; give the folder"):
        pc.load(folder / "config.json")
    (folder / "model.safetensors").unlink()
    with pytest.raises(NotAModel, match="no weights"):
        pc.load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(NotAModel, match="not readable JSON"):
        pc.load(folder)
    (folder / "config.json").write_text('{"name": "x"}')
    with pytest.raises(NotAModel, match="names no model_type"):
        pc.load(folder)
    (folder / "config.json").write_text('{"model_type": "nosuchtype"}')
    with pytest.raises(NotAModel, match="could not be opened as a model"):
        pc.load(folder)


def test_pickles_are_refused_with_the_way_out(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(UnsafeWeights, match=r"pytorch_model.bin, a pickle, .* convert it once"):
        pc.load(folder)


def test_code_of_a_repositorys_own_is_not_run(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "theirs", "auto_map": {"AutoModelForCausalLM": "modeling.Theirs"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "modeling.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(NotAModel, match="brings Python code of its own; read it, then load with remote_code=True"):
        pc.load(folder)


def test_a_hub_name_that_cannot_be_had():
    with pytest.raises(NotAModel, match="could not be opened as a model"):
        pc.load("nobody/nothing")


def test_models_are_values(gpt2, ids):
    edited = gpt2.edit(pc.zero("blocks.0.out"))
    assert edited.hf is gpt2.hf and gpt2.edits == () and edited != gpt2 and hash(edited) != hash(gpt2)
    assert repr(edited) == "Model(GPT2LMHeadModel edited by zero('blocks.0.out'))"
    assert gpt2 == pc.load(gpt2.hf).edit() or gpt2.body is not None


def test_loading_reads_no_tokenizer_and_runs_nothing(folder, monkeypatch):
    import transformers

    def fail(*args, **kwargs):
        raise AssertionError("a tokenizer was read")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", fail)
    model = pc.load(folder)
    assert "_anatomy" not in model.body.__dict__
    model.run([3, 4])
    assert "_anatomy" not in model.body.__dict__  # a bare run needs no anatomy either
