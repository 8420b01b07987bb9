"""A two-layer attention-only model whose heads are set by hand, one of each kind, so that what they do is known."""

from __future__ import annotations

import torch

import patchclamp as pc
from patchclamp.model.specimen import Specimen, SpecimenConfig

VOCAB, LENGTH, SHARP = 50, 48, 30.0
TOKEN, PLACE = slice(0, VOCAB), slice(VOCAB, VOCAB + LENGTH)
BEFORE, SAID = slice(PLACE.stop, PLACE.stop + VOCAB), slice(PLACE.stop + VOCAB, PLACE.stop + 2 * VOCAB)
"""Parts of the stream: the token, its place, the token before it, and what is said of the next."""
KINDS = {(0, 0): "previous token", (0, 1): "positional", (0, 2): "duplicate token", (0, 3): "copying", (0, 4): "inert",
         (1, 0): "induction"}  # fmt: skip


def model(order=(0, 1, 2, 3, 4)):
    """The model, its first layer's heads in this order."""
    width, inner = SAID.stop, VOCAB + LENGTH
    config = SpecimenConfig(vocab=VOCAB, layers=2, heads=[5, 1], d_model=width, d_head=inner, d_mlp=0, norm="none",
                            positional="learned", length=LENGTH, bias=False, scale=1.0)  # fmt: skip
    hf = Specimen(config).eval()
    with torch.no_grad():
        for parameter in hf.parameters():
            parameter.zero_()
        hf.embed.weight[:, TOKEN] = torch.eye(VOCAB)
        hf.positions.weight[:, PLACE] = torch.eye(LENGTH)
        hf.unembed.weight[:, SAID] = torch.eye(VOCAB)
        made = (_previous, _third, _duplicate, _copy, _inert)
        for at, kind in enumerate(order):
            _set(hf.blocks[0].attn, at, inner, made[kind])
        _set(hf.blocks[1].attn, 0, inner, _induction)
    return pc.load(hf)


def _set(attn, head, inner, kind):
    rows = slice(head * inner, (head + 1) * inner)
    q, k, v, o = (torch.zeros(inner, SAID.stop) for _ in range(4))
    kind(q, k, v, o)
    attn.q.weight[rows], attn.k.weight[rows], attn.v.weight[rows], attn.o.weight[:, rows] = q, k, v, o.T


def _moves(v, o, into, gain=1.0, turn=0):
    """Bring the token (another one, `turn` places on, in its stead) into a part of the stream."""
    v[:VOCAB, TOKEN] = torch.eye(VOCAB)
    o[:VOCAB, into] = gain * torch.eye(VOCAB).roll(turn, 1)


def _previous(q, k, v, o):
    q[:LENGTH, PLACE] = SHARP * torch.eye(LENGTH)
    k[:LENGTH, PLACE] = torch.eye(LENGTH).roll(1, 0)  # the key of place i answers to the query of place i + 1
    k[0, PLACE.stop - 1] = 0
    _moves(v, o, BEFORE)


def _third(q, k, v, o):
    q[0, PLACE] = SHARP
    k[0, PLACE.start + 3] = 1
    _moves(v, o, SAID, 2.0, turn=7)


def _duplicate(q, k, v, o):
    q[:VOCAB, TOKEN] = SHARP * torch.eye(VOCAB)
    k[:VOCAB, TOKEN] = torch.eye(VOCAB)
    q[VOCAB:, PLACE] = -0.7 * SHARP * torch.eye(LENGTH)  # not itself, where there is another
    k[VOCAB:, PLACE] = torch.eye(LENGTH)
    _moves(v, o, SAID, 1.0, turn=11)


def _copy(q, k, v, o):
    _moves(v, o, SAID, 3.0)


def _inert(q, k, v, o):
    q[:VOCAB, TOKEN] = torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(0))
    k[:VOCAB, TOKEN] = torch.eye(VOCAB)
    v[:VOCAB, TOKEN] = torch.eye(VOCAB)


def _induction(q, k, v, o):
    q[:VOCAB, TOKEN] = SHARP * torch.eye(VOCAB)
    k[:VOCAB, BEFORE] = torch.eye(VOCAB)
    _moves(v, o, SAID, 8.0)
