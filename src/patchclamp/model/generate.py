"""Generation with edits: the Hugging Face model's own `generate`, key-value cache and all, with the taps in place.

Every step is a forward pass over the newest tokens; the window says which ones, so that an edit at `pos=5` holds at the
sixth token whenever it comes by, and an edit with no `pos` holds at every token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from patchclamp.core.errors import Unserved, WrongPrompt
from patchclamp.core.run import Run
from patchclamp.core.window import Window
from patchclamp.model.inputs import Inputs

if TYPE_CHECKING:
    from patchclamp.model.model import Model


def generate(model: Model, prompt: Any, max_new_tokens: int, keep: Any, bos: bool | None, sampling: dict[str, Any]) -> Run:
    """See `Model.generate`."""
    module: Any = model.hf
    if not hasattr(module, "generate") or not module.can_generate():
        raise Unserved(f"{model.name} does not generate: it has no head that predicts the next token.")
    inputs = model.inputs(prompt, bos)
    if any(w.end is not None for w in inputs.windows.values()) and "decoder_input_ids" not in inputs.arguments:
        raise WrongPrompt(f"{model.name} cannot be padded on the left, so prompts of unequal length are continued one by one.")
    arguments = dict(inputs.arguments)
    if "attention_mask" not in arguments and "input_ids" in arguments:
        arguments["attention_mask"] = torch.ones_like(arguments["input_ids"])
    arguments.pop("position_ids", None)  # generate counts them from the mask
    steps = _Steps(inputs)
    forward = model.forward(inputs, keep, begin=steps.begin, late=True)
    sampling.setdefault("do_sample", False)
    if model.tokenizer is not None and "pad_token_id" not in sampling and module.generation_config.pad_token_id is None:
        sampling["pad_token_id"] = model.tokenizer.pad_token_id or model.tokenizer.eos_token_id
    made: Tensor = forward.run(lambda: module.generate(**arguments, max_new_tokens=max_new_tokens, **sampling))
    window = inputs.windows[""]
    whole = replace(window, length=made.shape[1])
    return Run(made, {**inputs.windows, "": whole}, forward.kept, None, fresh=made.shape[1] - window.length,
               reader=model.run_reader, model=model.name)  # fmt: skip


@dataclass(eq=False)
class _Steps:
    """Follows a generation: which columns of the growing sequence each forward pass covers."""

    inputs: Inputs
    seen: int = 0

    def begin(self, args: tuple, kwargs: dict) -> Mapping[str, Window]:
        ids = kwargs.get("decoder_input_ids", kwargs.get("input_ids", args[0] if args else None))
        length = ids.shape[1] if isinstance(ids, Tensor) else kwargs["inputs_embeds"].shape[1]
        if kwargs.get("past_key_values") is None and kwargs.get("cache_params") is None:
            self.seen = 0  # no cache: the whole sequence comes again
        window = self.inputs.windows[""]
        now = Window(length, self.seen, window.first, None)
        self.seen += length
        return {**self.inputs.windows, "": now}
