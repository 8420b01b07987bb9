"""The laws of the house, on every family that the support page lists as built. No network, no weights.

Each test is an equation. A family is every class of the installed transformers that the zoo can build; what a family
cannot serve is refused (docs/support.md says which and why), never served wrong.
"""

from __future__ import annotations

import copy
import threading

import pytest
import torch
import transformers

import patchclamp as pc
import support
import zoo
from patchclamp.lenses.parts import KINDS, Parts
from patchclamp.model.inputs import takes
from patchclamp.model.model import Model

BARE = [("gpt2", "base"), ("bert", "base"), ("t5", "base"), ("vit", "image"), ("dinov2", "image"), ("beit", "image")]
"""A few families without their head, and a few that name what is in a picture; the others would say the same again."""
RANDOM = {"reformer", "vit_mae"}
"""Models whose own forward differs from pass to pass (random hashing, random masks), so that there is nothing to be equal to."""
FAMILIES = [f for f in (*support.FAMILIES, *BARE) if f[0] not in RANDOM]
ANSWERS_AT_THE_FIRST_TOKEN = {"metaclip_2"}
"""Where a text has no end mark, its first token is read, which sees only itself: what it asks for makes no difference."""


@pytest.fixture(params=FAMILIES, ids=lambda f: f"{f[0]}-{f[1]}", scope="module")
def family(request):
    """(model, arguments): a small random model and an input it reads."""
    kind, task = request.param
    try:
        return support.load(kind, task)
    except Exception as error:
        if transformers.__version__ == support.written_for():
            raise
        pytest.skip(f"{kind} does not build under transformers {transformers.__version__}: {type(error).__name__}")


def bare(hf, inputs):
    """What the Hugging Face model itself returns."""
    with torch.no_grad(), zoo.quiet():
        return first(hf(**inputs, **uncached(hf)))


def uncached(hf):
    """A cache lays keys out differently in memory, which rounds differently."""
    return {"use_cache": False} if takes(hf, "use_cache") else {}


def first(output):
    """The output that counts: logits where there are any."""
    if isinstance(output, torch.Tensor):
        return output
    names = ("logits", "logits_per_image", "logits_per_video", "last_hidden_state", "pooler_output")
    return next(output[n] for n in names if n in output)


def through(model: Model, inputs, keep=(), **options):
    """One pass through the taps: (output, run)."""
    prepared = model.inputs(inputs)
    forward = model.forward(prepared, keep, **options)
    with torch.no_grad(), zoo.quiet():
        output = forward.run(lambda: model.call(prepared))
    return first(output), model.result(prepared, forward, None)


def served(family) -> Model:
    """The model, where there is a place to edit at all."""
    if not family[0].sites:
        pytest.skip("nothing in it is served")
    return family[0]


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
    equal = nearly if model.hf.config.model_type in ATTENDS_ELSEWHERE_TOO else torch.equal
    theirs = [p for p in patterns if p.startswith(("blocks.", "encoder.")) and ".cross." not in p]  # other stacks report none
    for path in theirs if model.hf.config.model_type not in REPORTS_OTHERS else ():
        same = [t for t in tensors if t.shape == run[path].shape]
        assert not same or any(equal(run[path], t) for t in same), path
    assert equal(output, first(reference))  # every layer's pattern was asked for, so the pass is the eager one


def nearly(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5)


ATTENDS_ELSEWHERE_TOO = {"blt", "seamless_m4t", "seamless_m4t_v2", "swin"}
"""Some of their attention has no pattern that is served, and keeps its fast kernel: the rest is equal up to rounding."""
REPORTS_OTHERS = {"blt", "cpmant", "prophetnet", "swin", "swinv2"}
"""What they report is not every block's pattern: another stack's, one a stage, masked, or the scores."""


def _eager(model, inputs):
    """The output, attentions and all, of the same model under its eager implementation."""
    hf = copy.deepcopy(model.hf)
    hf.set_attn_implementation("eager")
    with torch.no_grad(), zoo.quiet():
        try:
            return hf(**inputs, **uncached(hf), output_attentions=True)
        except IndexError:  # llama 4's picture tower cannot report its attention
            return hf(**inputs, **uncached(hf))


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
        if site.endswith((".q", ".k")) and model.hf.config.model_type in ANSWERS_AT_THE_FIRST_TOKEN:
            continue
        if site.startswith("model_patcher."):
            continue  # BLT's patcher only decides where patches end
        output, _ = through(
            model.edit(pc.Edit(site, lambda v: v + torch.randn_like(v) if v.is_floating_point() else v)), inputs
        )
        assert not torch.equal(output, truth), site


def test_edits_compose(family):
    model = served(family)
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
        pytest.skip(str(refused).replace(model.name, "it"))
    total = metric(first(_logits(model, inputs)))
    assert torch.allclose(parts.each.sum(1), total, atol=1e-4 * max(1.0, float(total.abs().max())))


def test_heads_and_neurons_add_up_to_their_layer(family):
    """What is left of a layer's write without them is its bias: the same at every token."""
    model, inputs = family
    sites = [s for s in model.sites if s.startswith("blocks.") and s.endswith((".z", ".act"))]
    served = 0
    for site in sites:
        axis = KINDS[site.rpartition(".")[2]]
        try:
            parts = Parts.of(model, f"{site}[{axis}=*]")
        except pc.PatchclampError:
            continue
        bias = model.weights[f"{parts.layer}.{'b_O' if axis == 'head' else 'b_out'}"]
        if parts.write.norms and bool(bias.any()):
            continue  # a bias behind which a norm stands is another at every token
        with zoo.quiet():
            run = model.run(inputs, [*parts.reads, f"{parts.layer}.out"], logits=False)
        out = run[f"{parts.layer}.out"]
        rest = out - parts.written(run, parts.entries).sum(0)
        assert torch.allclose(rest, rest[:1, :1].expand_as(rest), atol=1e-4 * max(1.0, float(out.abs().max()))), site
        served += 1
    if not served:
        pytest.skip("no heads or neurons whose writes can be told apart")


def _logits(model, inputs):
    with torch.no_grad(), zoo.quiet():
        return model.hf(**inputs, **uncached(model.hf))


def test_the_last_layer_of_the_lens_is_the_output(family):
    model, inputs = family
    if "logits" not in model.sites or not any(s.startswith("blocks.") and s.endswith(".out") for s in model.sites):
        pytest.skip("no logits or no stream")
    with zoo.quiet():
        grid = pc.lens(model, inputs)
        top = first(_logits(model, inputs)).float().softmax(-1).amax(-1)
    said = {name: values[-1] for name, values in grid.details.items()} | {"probability": grid.values[-1]}
    assert float(said["KL"].abs().max()) == 0.0 and float(said["rank"].abs().max()) == 0.0
    assert torch.equal(said["p(output)"], said["probability"])
    assert torch.allclose(said["probability"], top.reshape(said["KL"].shape), atol=1e-6)


def test_two_threads_do_not_meet(family):
    model, inputs = served(family), family[1]
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
