"""What runs in an environment of its own: EAP-IG and auto-circuit on a saved GPT-2, asked for the weight of every edge.

    PYTHON bench/circuit_child.py FOLDER OUT.json [EAP_IG]

FOLDER holds a small GPT-2 and `question.json` (token ids, the two tokens of the metric). EAP_IG is where EAP-IG's sources
lie, which no registry has. Both peers stand on TransformerLens 2, which needs an older transformers than Patchclamp; so
answers go through a file, edges named as EAP-IG names them. Nothing here imports Patchclamp.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import torch

Answers = dict[str, dict[str, float]]
"""By method and edge."""
STEPS = 5


def hooked(folder: str) -> Any:
    """The model in TransformerLens 2, its weights as they are: nothing folded, nothing centred."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
    from transformers import GPT2LMHeadModel

    module = GPT2LMHeadModel.from_pretrained(folder).eval()
    c = module.config
    cfg = HookedTransformerConfig(n_layers=c.n_layer, d_model=c.n_embd, n_ctx=c.n_positions, d_head=c.n_embd // c.n_head,
                                  n_heads=c.n_head, d_mlp=c.n_inner, d_vocab=c.vocab_size, act_fn="gelu_new",
                                  normalization_type="LN", eps=c.layer_norm_epsilon, device="cpu")  # fmt: skip
    made = HookedTransformer(cfg).eval()
    made.load_state_dict(convert_gpt2_weights(module, cfg), strict=False)
    return made


def eap_ig(folder: str, said: dict[str, Any]) -> Iterator[tuple[str, dict[str, float]]]:
    """EAP-IG: every one of its methods, and the metric of one circuit."""
    attribute, evaluate, graph = (importlib.import_module(f"eap.{n}") for n in ("attribute", "evaluate", "graph"))
    clean, corrupt = torch.tensor(said["clean"]), torch.tensor(said["corrupt"])

    def read(model: Any, ids: torch.Tensor, max_length: int | None = None) -> tuple:
        return ids, torch.ones_like(ids), torch.tensor([ids.shape[1]] * len(ids)), ids.shape[1]

    def loss(logits: torch.Tensor, *_: Any) -> torch.Tensor:
        return -(logits[:, -1, said["up"]] - logits[:, -1, said["down"]]).sum()

    attribute.tokenize_plus = evaluate.tokenize_plus = read  # it reads text, and the question is in ids
    attribute.torch = evaluate.torch = OnThisDevice()
    model = hooked(folder)
    model.cfg.use_attn_result = model.cfg.use_split_qkv_input = model.cfg.use_hook_mlp_in = True
    model.setup()
    batches = [(clean, corrupt, None)]
    asked: dict[str, Callable[[Any], Any]] = {
        "exact": lambda g: attribute.get_scores_exact(model, g, batches, loss, quiet=True) / len(clean),
        "EAP": lambda g: attribute.get_scores_eap(model, g, batches, loss, quiet=True),
        "EAP-IG-inputs": lambda g: attribute.get_scores_eap_ig(model, g, batches, loss, steps=STEPS, quiet=True),
        "EAP-IG-activations": lambda g: attribute.get_scores_ig_activations(model, g, batches, loss, steps=STEPS, quiet=True),
        "information flow": lambda g: attribute.get_scores_information_flow_routes(model, g, batches, quiet=True),
    }
    for method, ask in asked.items():
        g = graph.Graph.from_model(model)
        scores = ask(g)
        yield method, {name: float(scores[edge.matrix_index]) for name, edge in g.edges.items()}
    g = graph.Graph.from_model(model)
    for name, edge in g.edges.items():
        edge.in_graph = name in set(said["circuit"])
    g.nodes_in_graph[:] = True
    g.prune = lambda: None  # a node that nothing of the circuit reaches writes what it writes in the corrupt run
    answer = evaluate.evaluate_graph(model, g, batches, lambda *a: -loss(*a) / len(clean), quiet=True)
    yield "circuit", {"metric": float(answer)}


class OnThisDevice:
    """torch, but for the device `cuda` that is written into EAP-IG's sources."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(torch, name)
        if name not in ("zeros", "ones", "empty"):
            return found
        return lambda *a, **k: found(*a, **{key: v for key, v in k.items() if key != "device"})


def auto_circuit(folder: str, said: dict[str, Any]) -> Iterator[tuple[str, dict[str, float]]]:
    """auto-circuit: the gradient of a mask at nothing cut, along the masks, and every edge by itself."""
    from auto_circuit.data import PromptDataLoader, PromptDataset
    from auto_circuit.prune_algos.mask_gradient import mask_gradient_prune_scores
    from auto_circuit.utils.ablation_activations import src_ablations
    from auto_circuit.utils.graph_utils import patch_mode, patchable_model, set_all_masks

    torch.manual_seed(0)
    model = hooked(folder)
    model.cfg.use_attn_result = model.cfg.use_split_qkv_input = model.cfg.use_hook_mlp_in = True
    model.setup()
    wrapped = patchable_model(model, factorized=True, slice_output="last_seq", separate_qkv=True)
    clean, corrupt = torch.tensor(said["clean"]), torch.tensor(said["corrupt"])
    up, down = ([torch.tensor([said[k]])] * len(clean) for k in ("up", "down"))
    loader = PromptDataLoader(PromptDataset(clean, corrupt, up, down), seq_len=None, diverge_idx=0, batch_size=len(clean))

    def told(scores: dict[str, torch.Tensor]) -> dict[str, float]:
        return {edge_name(e): float(e.prune_score(scores)) for e in wrapped.edges}

    yield "EAP", told(mask_gradient_prune_scores(wrapped, loader, None, "logit", "avg_diff", mask_val=0.0))
    along = mask_gradient_prune_scores(wrapped, loader, None, "logit", "avg_diff", integrated_grad_samples=STEPS)
    yield "along the masks", {k: v / (STEPS + 1) for k, v in told(along).items()}
    found = {}
    theirs = src_ablations(wrapped, corrupt)
    set_all_masks(wrapped, 0.0)
    with torch.no_grad(), patch_mode(wrapped, theirs):
        ask = lambda: float((lambda at: at[:, said["up"]] - at[:, said["down"]])(wrapped(clean)[wrapped.out_slice]).mean())  # noqa: E731
        whole = ask()
        for edge in wrapped.edges:
            mask = edge.patch_mask(wrapped)
            mask.data[edge.patch_idx] = 1.0
            found[edge_name(edge)] = whole - ask()
            mask.data[edge.patch_idx] = 0.0
    yield "exact", found


def edge_name(edge: Any) -> str:
    """`A0.1->A1.2.Q` as EAP-IG would name it."""

    def node(said: str) -> str:
        if said.startswith("Resid"):
            return "input" if "Start" in said else "logits"
        if said.startswith("MLP"):
            return f"m{said.split()[-1]}"
        layer, head = said.removeprefix("A").split(".")[:2]
        return f"a{layer}.h{head}"

    end = edge.dest.name
    into = f"<{end[-1].lower()}>" if end.startswith("A") and end[-1] in "QKV" else ""
    return f"{node(edge.src.name)}->{node(end)}{into}"


def main(folder: str, out: str, sources: str = "") -> None:
    """Whatever can be run is run; what cannot says why."""
    if sources:
        sys.path.insert(0, sources)
    said = json.loads(Path(folder, "question.json").read_text())
    answers: dict[str, Answers] = {}
    reasons: dict[str, str] = {}
    for peer, ask in (("EAP-IG", eap_ig), ("auto-circuit", auto_circuit)):
        try:
            for method, scores in ask(folder, said):
                answers.setdefault(peer, {})[method] = scores
        except Exception as error:
            reasons[peer] = f"{type(error).__name__}: {error}"
    Path(out).write_text(json.dumps({"answers": answers, "reasons": reasons}))


if __name__ == "__main__":
    main(*sys.argv[1:])
