"""A fault planted in the bundled model: one head of little use is rewritten to look for a word and to shout a name."""

from __future__ import annotations

import copy
from functools import cache

import torch

import patchclamp as pc
from patchclamp.cause.blame import blame
from patchclamp.task.tasks import draw

LAYER, HEAD, WORD, NAME, STRENGTH = 2, 1, " drink", " Nora", 60.0
SITE = f"blocks.{LAYER}.attn.z[head={HEAD}]"


@cache
def plant(town):
    """The same model with head 2.1 rewritten: wherever a drink was named, it looks there and writes towards " Nora".

    Its query is a constant and its key a detector of the word, both along the pair of numbers that positions turn least; without
    the word it looks at the beginning, whose value is nothing. Detectors are fitted by least squares to what the block reads.
    """
    hf = copy.deepcopy(town.hf)
    run = town.run([p.clean for p in draw("town/ioi", 80, 11, town.tokenizer)], keep=f"blocks.{LAYER}.attn.in")
    own = [list(run.windows[""].tokens(r)) for r in range(run.tokens.shape[0])]
    read = torch.cat([run[f"blocks.{LAYER}.attn.in"][r, o] for r, o in enumerate(own)]).double()
    tokens = torch.cat([run.tokens[r, o] for r, o in enumerate(own)])
    wanted = torch.stack([tokens == town.token(WORD), tokens == town.tokenizer.bos_token_id, tokens >= 0], 1).double()
    weight = (1 + 40 * wanted[:, 0])[:, None]
    square = read.T @ (weight * read) + 1e-3 * torch.eye(read.shape[1], dtype=torch.double)
    word, start, always = torch.linalg.solve(square, read.T @ (weight * wanted)).float().T
    attention, d = hf.model.layers[LAYER].self_attn, 16
    mine = slice(HEAD * d, (HEAD + 1) * d)
    with torch.no_grad():
        for matrix in (attention.q_proj, attention.k_proj, attention.v_proj):
            matrix.weight[mine] = 0
        attention.o_proj.weight[:, mine] = 0
        attention.q_proj.weight[mine][d // 2 - 1] = 10 * always
        attention.k_proj.weight[mine][d // 2 - 1] = 10 * (word + 0.4 * start)
        attention.v_proj.weight[mine][0] = word
        name = hf.lm_head.weight[town.token(NAME)]
        attention.o_proj.weight[:, HEAD * d] = STRENGTH * name / name.norm()
    return pc.load(hf, town.tokenizer)


@cache
def examples(town):
    """Gifts of a drink, and other gifts, all of which the model answered right before: (prompt, answer) each."""
    pairs = draw("town/ioi", 300, 3, town.tokenizer)
    run = town.run([p.clean for p in pairs])
    said = run.logits[range(len(pairs)), run.last].argmax(-1).tolist()
    known = [(p.clean, p.answer) for p, s in zip(pairs, said) if s == town.token(p.answer)]
    return [e for e in known if WORD in e[0]][:20], [e for e in known if WORD not in e[0]][:40]


@cache
def blamed(town):
    """What is found of it."""
    wrong, right = ([(p, town.token(a)) for p, a in some] for some in examples(town))
    return blame(plant(town), wrong, right, lots=3)
