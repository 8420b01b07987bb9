"""The laws of the house, on every family that builds from a small random config. No network, no weights.

Each test is an equation. A family is every class of the installed transformers that the zoo can build; what a family
cannot serve is refused (tests/test_support.py writes down which and why), never served wrong.
"""

from __future__ import annotations

import copy
import threading
from functools import lru_cache

import pytest
import torch

import patchclamp as pc
import zoo
from patchclamp.model.example import example
from patchclamp.model.model import Model

FAMILIES = [(kind, "causal") for kind in zoo.kinds("causal")]
FAMILIES += [
    (k, "masked")
    for k in (
        "bert",
        "roberta",
        "distilbert",
        "albert",
        "electra",
        "modernbert",
        "deberta",
        "deberta-v2",
        "esm",
        "mpnet",
    )
]
FAMILIES += [
    (k, "seq2seq")
    for k in ("t5", "bart", "mbart", "pegasus", "marian", "blenderbot", "m2m_100", "mt5", "umt5", "t5gemma", "longt5")
]
FAMILIES += [
    (k, "base")
    for k in (
        "clip",
        "siglip",
        "clip_vision_model",
        "siglip_vision_model",
        "clip_text_model",
        "vit",
        "dinov2",
        "dinov2_with_registers",
        "dinov3_vit",
        "wav2vec2",
        "hubert",
        "bert",
        "t5",
        "gpt2",
    )
]
FAMILIES += [("whisper", "speech"), ("vit", "image"), ("dinov2", "image"), ("beit", "image"), ("deit", "image")]
RANDOM = {"reformer"}
"""Models whose own forward differs from pass to pass (random hashing), so that there is nothing to be equal to."""


@pytest.fixture(params=FAMILIES, ids=lambda f: f"{f[0]}-{f[1]}")
def family(request):
    """(model, arguments): a small random model and an input it reads."""
    kind, task = request.param
    if kind in RANDOM:
        pytest.skip(f"{kind} is random from pass to pass")
    found = _family(kind, task)
    if isinstance(found, str):
        pytest.skip(found)
    return found


@lru_cache(maxsize=2)
def _family(kind: str, task: str):
    try:
        with zoo.quiet():
            hf = zoo.build(kind, task)
            inputs = {k: v for k, v in example(hf).items() if isinstance(v, torch.Tensor)}
            bare(hf, inputs)
    except Exception as error:
        return f"{kind} does not build or run from a small config: {type(error).__name__}"
    return pc.load(hf), inputs


def bare(hf, inputs):
    """What the Hugging Face model itself returns."""
    more = {"use_cache": False} if "use_cache" in type(hf).forward.__code__.co_varnames else {}
    with torch.no_grad(), zoo.quiet():
        return first(hf(**inputs, **more))


def first(output):
    """The output that counts: logits where there are any."""
    if isinstance(output, torch.Tensor):
        return output
    names = ("logits", "last_hidden_state", "logits_per_image", "pooler_output")
    return next(output[n] for n in names if n in output)


def through(model: Model, inputs, keep=(), **options):
    """One pass through the taps: (output, run)."""
    prepared = model.inputs(inputs)
    forward = model.forward(prepared, keep, **options)
    with torch.no_grad(), zoo.quiet():
        output = forward.run(lambda: model.call(prepared))
    return first(output), model.result(prepared, forward, None)


def outside(model: Model) -> list[str]:
    """Every place that can be looked at without another attention kernel."""
    return [s for s in model.sites if not s.endswith((".scores", ".pattern"))]


def test_looking_changes_nothing(family):
    model, inputs = family
    seen, run = through(model, inputs, outside(model))
    assert torch.equal(seen, bare(model.hf, inputs))
    assert set(run.kept) == set(outside(model))


def test_a_pattern_is_the_models_own(family):
    model, inputs = family
    patterns = [s for s in model.sites if s.endswith(".pattern")]
    if not patterns:
        pytest.skip("no attention patterns")
    output, run = through(model, inputs, patterns)
    reference = _eager(model, inputs)
    tensors = [t for t in _tensors(reference) if t.ndim == 4]
    if tensors:  # towers of composite models do not report theirs
        theirs = [p for p in patterns if ".cross." not in p and not p.startswith(("vision.", "text."))]
        for path in theirs:
            same = [t for t in tensors if t.shape == run[path].shape]
            masked = path.startswith("blocks") and model.hf.config.model_type in REPORTS_ITS_PATTERN_MASKED
            assert not same or masked or any(torch.equal(run[path], t) for t in same), path
    assert torch.equal(output, first(reference))  # every layer's pattern was asked for, so the pass is the eager one


REPORTS_ITS_PATTERN_MASKED = {"cpmant"}


def _eager(model, inputs):
    """The output, attentions and all, of the same model under its eager implementation."""
    hf = copy.deepcopy(model.hf)
    hf.set_attn_implementation("eager")
    with torch.no_grad(), zoo.quiet():
        return hf(**inputs, output_attentions=True)


def _tensors(output):
    found = []
    for value in output.values():
        found += (
            [value]
            if isinstance(value, torch.Tensor)
            else [t for t in value if isinstance(t, torch.Tensor)]
            if isinstance(value, tuple)
            else []
        )
    return found


def test_rows_of_a_pattern_sum_to_one_or_leave_a_sink(family):
    model, inputs = family
    patterns = [s for s in model.sites if s.endswith(".pattern")]
    _, run = through(model, inputs, patterns)
    for path in patterns:
        rows = run[path].float().sum(-1)
        assert bool((rows <= 1 + 1e-4).all()), path
        if model.hf.config.model_type not in SINKS:
            assert torch.allclose(rows, torch.ones_like(rows), atol=1e-4), path


SINKS = {"gpt_oss", "mimo_v2_flash", "flint", "inkling_text", "minimax_m3_vl_text"}


def test_a_model_forgets_its_edits(family):
    model, inputs = family
    before, output = fingerprint(model.hf), bare(model.hf, inputs)
    through(model.edit(*(pc.Edit(s, lambda v: v * 0.5 if v.is_floating_point() else v) for s in outside(model))), inputs)
    assert fingerprint(model.hf) == before
    assert torch.equal(bare(model.hf, inputs), output)


def test_a_model_forgets_its_edits_after_an_exception_at_any_site(family):
    model, inputs = family
    before = fingerprint(model.hf)

    def fail(value):
        raise KeyError("inside an edit")

    for site in list(model.sites)[:: max(len(model.sites) // 6, 1)]:
        with pytest.raises(KeyError, match="inside an edit"):
            through(model.edit(pc.Edit(site, fail)), inputs)
        assert fingerprint(model.hf) == before, site


def test_patching_a_run_into_itself_is_the_identity(family):
    model, inputs = family
    sites = [s for s in model.sites if s != "logits"]
    _, run = through(model, inputs, sites)
    patched = [pc.patch(s, run) for s in sites]
    output, _ = through(model.edit(*patched), inputs)
    inside = any(s.endswith((".scores", ".pattern")) for s in sites)
    truth = bare(model.hf, inputs)
    assert (
        torch.allclose(output, truth, rtol=1e-4, atol=1e-4 * float(truth.abs().max())) if inside else torch.equal(output, truth)
    )


def test_every_place_is_causal(family):
    """A place that can be changed changes the output: nothing is read off to the side."""
    model, inputs = family
    truth = bare(model.hf, inputs)
    for site in outside(model)[:: max(len(model.sites) // 8, 1)]:
        if site.endswith((".chosen", "logits")) or site.startswith("norm") or ".scores" in site:
            continue
        output, _ = through(
            model.edit(pc.Edit(site, lambda v: v + torch.randn_like(v) if v.is_floating_point() else v)), inputs
        )
        assert not torch.equal(output, truth), site


def test_edits_compose(family):
    model, _ = family
    a, b = (pc.zero(s) for s in (list(model.sites)[0], list(model.sites)[-1]))
    assert model.edit(a).edit(b) == model.edit(a, b)
    assert model.edit(a) != model.edit(b) and model.edit() == model


def test_padding_does_not_matter(family):
    model, inputs = family
    if set(inputs) != {"input_ids"} or "logits" not in model.sites:
        pytest.skip("only for models that read ids and return logits")
    short, long = inputs["input_ids"][0, :3].tolist(), inputs["input_ids"][1].tolist()
    with zoo.quiet():
        if not model.body.padding:
            pytest.skip("padding changes what it computes, so unequal prompts are refused")
        alone, padded = model.run([short]), model.run([short, long])
    at = padded.windows[""].tokens(0)
    assert len(at) == 3
    ours, theirs = padded.logits[0, list(at)], alone.logits[0]
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max())), float((ours - theirs).abs().max())


def test_direct_contributions_add_up(family):
    model, inputs = family
    if "logits" not in model.sites:
        pytest.skip("it returns no logits per token")
    metric = pc.logit_diff(7, 8)
    try:
        with zoo.quiet():
            parts = pc.decompose(model, inputs, metric)
    except pc.PatchclampError as refused:
        pytest.skip(str(refused))
    total = metric(first(_logits(model, inputs)))
    assert torch.allclose(parts.each.sum(1), total, atol=1e-4 * max(1.0, float(total.abs().max())))


def _logits(model, inputs):
    with torch.no_grad(), zoo.quiet():
        return model.hf(**inputs)


def test_the_last_layer_of_the_lens_is_the_output(family):
    model, inputs = family
    if "logits" not in model.sites or not any(s.startswith("blocks.") and s.endswith(".out") for s in model.sites):
        pytest.skip("no logits or no stream")
    with zoo.quiet():
        grid = pc.lens(model, inputs, "blocks.-1.out")
    assert float(grid.details["KL"].abs().max()) == 0.0


def test_two_threads_do_not_meet(family):
    model, inputs = family
    sites = outside(model)
    one, two = model.edit(pc.zero(sites[len(sites) // 3])), model.edit(pc.zero(sites[len(sites) // 2]))
    models = {"bare": model, "one": one, "two": two}
    alone = {name: through(m, inputs, sites[:1])[0] for name, m in models.items()}
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in models}

    def work(name):
        prepared = models[name].inputs(inputs)
        for _ in range(3):
            forward = models[name].forward(prepared, sites[:1])
            with torch.no_grad():
                seen[name].append(first(forward.run(lambda: models[name].call(prepared))))

    threads = [threading.Thread(target=work, args=(name,)) for name in models]
    with zoo.quiet():
        [t.start() for t in threads]
        [t.join() for t in threads]
    for name in models:
        assert len(seen[name]) == 3 and all(torch.equal(s, alone[name]) for s in seen[name]), name


def fingerprint(hf):
    """Everything of a module that a run could leave behind: hooks, forwards, weights, attention settings."""
    from transformers.modeling_utils import AttentionInterface

    hooks = [(n, list(m._forward_hooks), list(m._forward_pre_hooks), "forward" in m.__dict__) for n, m in hf.named_modules()]
    weights = [(n, p.data_ptr(), p._version, p.requires_grad) for n, p in hf.named_parameters()]
    return hooks, weights, str(hf.config), AttentionInterface.get_interface.__qualname__
