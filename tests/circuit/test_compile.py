"""Compiled programs: exact on every sequence, and their circuit is the true one, edge by edge."""

import copy
import itertools

import pytest
import torch

import patchclamp as pc
from patchclamp.circuit.compile import compile
from patchclamp.circuit.programs import PROGRAMS, dyck1, dyck2, fraction_of_previous, histogram, reverse, sort
from patchclamp.circuit.rasp import Program, aggregate, constant, everywhere, indices, map, mean, select, selector_width, tokens
from patchclamp.core.errors import Unserved, WrongPrompt, WrongToken

LENGTH = 4
"""Every sequence of up to four tokens: 120 of three letters, 340 of four brackets."""


def program(name, output, oracle, vocab="abc", length=LENGTH):
    return Program(name, output, tuple(vocab), length, oracle)


def batches(made):
    """Every sequence the program is meant for, by length: (sequences, ids)."""
    for _, group in itertools.groupby(made.program.sequences(), key=len):
        sequences = list(group)
        yield sequences, torch.stack([made.encode(s) for s in sequences])


@torch.no_grad()
def faults(made, hf=None):
    """On how many sequences the model's answers are not the oracle's."""
    wrong = 0
    for sequences, ids in batches(made):
        for sequence, logits in zip(sequences, (hf or made.hf)(ids).logits):
            right, said = list(made.program.oracle(sequence)), made.decode(logits)
            wrong += said != right if made.answers else said != pytest.approx(right, abs=1e-4)
    return wrong


@pytest.fixture(scope="module", params=PROGRAMS, ids=lambda make: make.__name__)
def made(request):
    """A compiled program, turned, among junk."""
    return compile(request.param(length=LENGTH), junk=4, rotate=True, seed=3)


def test_the_model_computes_the_program_on_every_sequence(made):
    assert faults(made) == 0
    assert faults(compile(made.program)) == 0


def test_however_sharp(made):
    assert faults(compile(made.program, sharpness=100, rotate=True)) == 0


# ---- the circuit, by cutting -----------------------------------------------------------------------------------------


def wires(hf):
    """Every pair of a sender and an input of a receiver that comes after it."""
    senders = ["blocks.0.in"]
    for i, block in enumerate(hf.blocks):
        heads = [f"blocks.{i}.attn.z[head={h}]" for h in range(hf.config.heads_at(i))]
        yield from ((s, head, into) for head in heads for into in "qkv" for s in senders)
        senders += heads
        if block.mlp is not None:
            yield from ((s, f"blocks.{i}.mlp.out", "mlp") for s in senders)
            senders.append(f"blocks.{i}.mlp.out")
    yield from ((s, "logits", "") for s in senders)


def place(hf, node, into):
    """The rows of the matrix that a node reads its input with, and the columns of the one it writes with."""
    if node == "blocks.0.in":
        return None, hf.embed.weight.T
    if node == "logits":
        return hf.unembed.weight, None
    block = hf.blocks[int(node.split(".")[1])]
    if "mlp" in node:
        return block.mlp.up.weight, block.mlp.down.weight
    h, d = int(node.partition("head=")[2].rstrip("]")), hf.config.d_head
    rows = slice(h * d, (h + 1) * d)
    return getattr(block.attn, into or "v").weight[rows], block.attn.o.weight[:, rows]


@torch.no_grad()
def cut(hf, sender, receiver, into):
    """The model in which the receiver reads nothing of what the sender can write."""
    hf = copy.deepcopy(hf)
    u, s, _ = torch.linalg.svd(place(hf, sender, "")[1].double(), full_matrices=False)
    written = u[:, s > 1e-4 * s.max().clamp(min=1e-9)]
    reads = place(hf, receiver, into)[0]
    reads -= (reads.double() @ written @ written.T).to(reads.dtype)
    return hf


def test_every_edge_is_needed_and_no_other_matters(made):
    true = {(e.sender, e.receiver, e.into) for e in made.graph.edges}
    every = set(wires(made.hf))
    assert true < every
    _, ids = max(batches(made), key=lambda batch: len(batch[0]))
    ids = ids[::3]  # of all sequences of the greatest length
    with torch.no_grad():
        whole = made.hf(ids).logits[:, 1:]
        for wire in every:
            moved = float((cut(made.hf, *wire)(ids).logits[:, 1:] - whole).abs().max())
            assert (moved > 0.1) == (wire in true) and (wire in true or moved < 1e-3), (wire, moved)


def test_without_one_edge_some_answers_are_wrong(made):
    for edge in made.graph.edges:
        assert faults(made, cut(made.hf, edge.sender, edge.receiver, edge.into)) > 0, edge


def test_what_follows_from_the_length_differs_in_no_pair(made):
    made = compile(made.program, rotate=True)  # junk neurons would read tokens into any layer
    model, pairs = pc.load(made.hf), made.pairs(8)
    still = {e.sender for e in made.graph.edges} - {e.sender for e in made.varying.edges}
    for path in still:
        bare = path.partition("[")[0]
        ours, theirs = (model.run(ids, keep=bare)[path] for ids in (pairs.clean, pairs.corrupt))
        assert torch.allclose(ours, theirs, atol=1e-5)
    assert bool(still) == (made.program.name == "reverse")


# ---- circuits known by hand ------------------------------------------------------------------------------------------


def edges(made):
    return {(e.sender, e.receiver, e.into) for e in made.graph.edges}


def test_the_circuit_of_histogram():
    head, mlp = "blocks.0.attn.z[head=0]", "blocks.0.mlp.out"
    assert edges(compile(histogram())) == {
        ("blocks.0.in", head, "q"),
        ("blocks.0.in", head, "k"),
        (head, mlp, "mlp"),
        (mlp, "logits", ""),
    }


def test_the_circuit_of_sort():
    found = compile(sort())
    assert edges(found) == {
        ("blocks.0.in", "blocks.0.mlp.out", "mlp"),
        ("blocks.0.mlp.out", "blocks.1.attn.z[head=0]", "q"),
        ("blocks.0.mlp.out", "blocks.1.attn.z[head=0]", "k"),
        ("blocks.1.attn.z[head=0]", "blocks.1.mlp.out", "mlp"),
        ("blocks.1.mlp.out", "blocks.2.attn.z[head=0]", "k"),
        ("blocks.0.in", "blocks.2.attn.z[head=0]", "v"),
        ("blocks.2.attn.z[head=0]", "logits", ""),
    }
    assert [n.label for n in found.graph.nodes] == [
        "tokens", "token and place", "share of rank", "rank", "token of this rank", "logits",
    ]  # fmt: skip


def test_parts_go_side_by_side_and_one_after_another():
    brackets, deep = compile(dyck1()).hf.config, compile(dyck2()).hf.config
    assert brackets.heads == [2, 1, 1, 0] and deep.heads == [2, 1, 1, 1, 1, 0] and deep.layers == 6


def test_of_a_program_of_places_alone_patching_sees_little():
    found = compile(reverse())
    assert len(found.graph.edges) == 5
    assert {(e.sender, e.into) for e in found.varying.edges} == {("blocks.0.in", "v"), ("blocks.2.attn.z[head=0]", "")}


def test_values_are_read_through_the_attention_that_was_meant():
    model, found = pc.load(compile(reverse()).hf), compile(reverse())
    pattern = model.run(found.encode("abcab"), keep="blocks.2.attn.pattern")["blocks.2.attn.pattern"][0, 0]
    assert torch.allclose(pattern[1:, 1:], torch.eye(5).flip(0), atol=1e-5) and float(pattern[0, 0]) > 0.999


# ---- programs of one's own -------------------------------------------------------------------------------------------


def test_nothing_selected_is_the_default():
    before = select(indices, map(lambda i: i - 1, indices))
    for default in (None, "?", "a"):
        made = compile(program("previous", aggregate(before, tokens, default=default), lambda s, d=default: [d, *s[:-1]]))
        assert faults(made) == 0
    chained = aggregate(
        select(aggregate(before, tokens, default="a"), tokens) & select(indices, constant(0)), tokens, default="z"
    )
    made = compile(
        program("the first, where it is an a", chained, lambda s: [s[0] if t == "a" else "z" for t in s]), rotate=True
    )
    assert faults(made) == 0


def test_the_place_of_bos_is_never_mistaken_for_a_value():
    """A count of zero and a default are written as nothing, as BOS is; as keys, queries and values they are told apart."""
    later = selector_width(select(indices, indices, lambda key, query: key > query) & select(tokens, tokens))
    last = aggregate(select(later, constant(0)) & select(tokens, tokens), tokens)
    assert faults(compile(program("itself", last, list), rotate=True)) == 0
    count = selector_width(select(later, constant(0)))
    assert faults(compile(program("kinds", count, lambda s: [len(set(s))] * len(s)))) == 0
    share = mean(everywhere(), map(lambda n: 1 if n == 0 else -3, later))
    assert (
        faults(compile(program("score", share, lambda s: [(len(set(s)) - 3 * (len(s) - len(set(s)))) / len(s)] * len(s)))) == 0
    )


def test_numbers_of_either_sign_are_told_apart():
    sign = map(lambda t: {"a": 1, "b": 0, "c": -1}[t], tokens)
    output = map(lambda x: float(x), mean(everywhere(), sign))
    value = {"a": 1, "b": 0, "c": -1}
    assert (
        faults(compile(program("mean sign", output, lambda s: [sum(value[t] for t in s) / len(s)] * len(s)), rotate=True)) == 0
    )
    twice = mean(everywhere(), mean(select(indices, indices), sign))
    assert faults(compile(program("mean of means", twice, lambda s: [sum(value[t] for t in s) / len(s)] * len(s)))) == 0


def test_a_constant_and_one_token_are_programs_too():
    same = map(lambda t: "x", tokens)
    assert faults(compile(program("constant", same, lambda s: ["x"] * len(s)))) == 0
    assert faults(compile(program("one", selector_width(select(tokens, tokens)), lambda s: [len(s)] * len(s), vocab="a"))) == 0
    with pytest.raises(Unserved, match="gives back what it is given; there is nothing to compile"):
        compile(program("tokens", tokens, list))


# ---- junk, rotation, seeds -------------------------------------------------------------------------------------------


def test_junk_is_busy_and_inert(made):
    model = pc.load(made.hf)
    true = {n.site for n in made.graph.nodes}
    heads = {w[1] for w in wires(made.hf) if "head" in w[1]}
    assert len(heads - true) == 4
    ids = made.pairs(4).clean
    for site in heads - true:
        bare = site.partition("[")[0]
        written = model.run(ids, keep=bare)[site]
        assert float(written.std()) > 0.05
        without = model.edit(pc.zero(site)).run(ids).logits
        assert torch.allclose(without, model.run(ids).logits, atol=1e-4)


def test_a_turned_stream_has_no_coordinates_with_a_meaning():
    plain, turned = compile(histogram()), compile(histogram(), rotate=True, seed=1)
    assert (plain.hf.embed.weight[1:].abs().max(-1).values == 1).all()
    assert (turned.hf.embed.weight[1:].abs().max(-1).values < 0.95).all()
    assert torch.allclose(turned.hf.embed.weight[1:].norm(dim=-1), torch.ones(3))
    ids = plain.encode("abcab")[None]
    assert torch.allclose(plain.hf(ids).logits, turned.hf(ids).logits, atol=1e-4)


def test_a_seed_says_all_and_disturbs_nobody():
    torch.manual_seed(0)
    ahead = torch.rand(1)
    torch.manual_seed(0)
    one, two, other = (compile(sort(), junk=3, rotate=True, seed=s) for s in (5, 5, 6))
    assert torch.equal(torch.rand(1), ahead)
    assert all(torch.equal(a, b) for a, b in zip(one.hf.state_dict().values(), two.hf.state_dict().values()))
    assert one.graph == two.graph and not torch.equal(one.hf.embed.weight, other.hf.embed.weight)


def test_gradients_pass_where_scores_are_soft():
    def gradient(**soft):
        made = compile(histogram(), **soft)
        made.hf(made.encode("abcab")[None]).logits[0, 1].max().backward()
        return float(made.hf.blocks[0].attn.q.weight.grad.abs().max())

    assert gradient(sharpness=5.0, margin=0.0) > 0.01 and gradient(sharpness=5.0) == 0
    assert faults(compile(histogram(), sharpness=5.0, margin=0.0)) == 0


# ---- pairs, and the rest of the house --------------------------------------------------------------------------------


def test_pairs_differ_where_they_say(made):
    pairs = made.pairs(6, seed=2)
    assert pairs.clean.shape == pairs.corrupt.shape == (6, LENGTH + 1) and (pairs.clean[:, 0] == 0).all()
    for clean, corrupt, at in zip(pairs.clean, pairs.corrupt, pairs.at.tolist()):
        one, two = ([made.program.vocab[i - 1] for i in ids[1:].tolist()] for ids in (clean, corrupt))
        assert made.program(one)[at - 1] != made.program(two)[at - 1]
    assert torch.equal(pairs.clean, made.pairs(6, seed=2).clean) and not torch.equal(pairs.clean, made.pairs(6, seed=3).clean)
    assert made.pairs(2, length=2).clean.shape == (2, 3)


def test_the_metric_of_pairs_tells_them_apart(made):
    pairs = made.pairs(6)
    with torch.no_grad():
        clean, corrupt = (pairs.metric(made.hf(ids).logits) for ids in (pairs.clean, pairs.corrupt))
    assert (abs(clean - corrupt) > (19.9 if made.answers else 0.05)).all()


def test_effects_find_the_heads_of_the_circuit():
    made = compile(dyck1(), junk=6, rotate=True, seed=1)
    model, pairs = pc.load(made.hf), made.pairs(16)
    for layer, heads in enumerate(made.hf.config.heads):
        if heads:
            grid = pc.effects(model, pairs.clean, pairs.corrupt, f"blocks.{layer}.attn.z[head=*]", pairs.metric)
            strong = {h for h in range(heads) if grid.each is not None and float(grid.each[:, h].abs().max()) > 0.1}
            assert strong == {h for h in range(heads) if f"blocks.{layer}.attn.z[head={h}]" in made.graph}


def test_contributions_of_a_compiled_model_add_up():
    made = compile(fraction_of_previous(), rotate=True)
    parts = pc.decompose(pc.load(made.hf), made.encode("aabca"), pc.logit(0))
    assert float(parts.values.sum()) == pytest.approx(0.6, abs=1e-4) == pytest.approx(made("aabca")[-1], abs=1e-4)


def test_it_saves_and_opens_as_any_model(tmp_path):
    made = compile(histogram(), junk=2, rotate=True)
    made.hf.save_pretrained(tmp_path / "model")
    made.graph.save(tmp_path / "graph")
    again = pc.load(tmp_path / "model")
    assert torch.equal(again.hf(made.encode("abb")[None]).logits, made.hf(made.encode("abb")[None]).logits)
    assert pc.Graph.load(tmp_path / "graph").edges == made.graph.edges


def test_prompts_may_be_padded():
    made = compile(sort("abcd"), rotate=True)
    model = pc.load(made.hf)
    run = model.run([made.encode("ba").tolist(), made.encode("cabca").tolist()])
    assert made.decode(run.logits[0, -3:]) == ["a", "b"] and made.decode(run.logits[1]) == list("aabcc")


def test_mistakes_are_said():
    made = compile(reverse())
    with pytest.raises(WrongPrompt, match="reverse reads 1 to 5 tokens; got 6"):
        made("abcabc")
    with pytest.raises(WrongToken, match="reverse reads a, b, c; 'd' is none of them"):
        made.encode("abd")
    same = compile(program("constant", map(lambda t: "x", tokens), lambda s: ["x"] * len(s)))
    with pytest.raises(Unserved, match="the same answer on nearly all sequences of 4 tokens"):
        same.pairs(1)
