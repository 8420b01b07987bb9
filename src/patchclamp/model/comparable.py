"""Two batches of prompts laid side by side, token by token: whether that can be done, and where they first differ."""

from __future__ import annotations

from torch import Tensor

from patchclamp.core.errors import WrongPrompt
from patchclamp.model.inputs import Inputs


def comparable(clean: Inputs, corrupt: Inputs) -> int:
    """The first token in which two batches differ; an error where they cannot be laid side by side."""
    a, b = clean.tokens, corrupt.tokens
    if clean.batch != corrupt.batch or a.shape != b.shape or clean.windows != corrupt.windows:
        raise WrongPrompt(
            f"patching lays two prompts side by side, token by token: the clean one has {a.shape[1]} tokens"
            f"{f' in {a.shape[0]} prompts' if a.shape[0] > 1 else ''}, the corrupt one {b.shape[1]}"
            f"{f' in {b.shape[0]} prompts' if b.shape[0] > 1 else ''}. Reword one so that they match."
        )
    if set(clean.arguments) != set(corrupt.arguments):
        raise WrongPrompt("the two prompts come with different inputs; prepare them in the same way.")
    differs = (a != b).any(0)
    if not a.shape[1] or "decoder_input_ids" in clean.arguments:
        return _encoders_match(clean, corrupt)
    if not bool(differs.any()):
        raise WrongPrompt("the clean and the corrupt prompt are the same tokens; there is nothing to patch.")
    return int(differs.int().argmax())


def _encoders_match(clean: Inputs, corrupt: Inputs) -> int:
    """Whatever else goes in must have the same shape; nothing is known to be the same up to some token."""
    for name, value in clean.arguments.items():
        other = corrupt.arguments[name]
        if isinstance(value, Tensor) and value.shape != other.shape:
            raise WrongPrompt(
                f"patching lays two prompts side by side: {name} is {list(value.shape)} for the clean one and "
                f"{list(other.shape)} for the corrupt one. Reword one so that they match."
            )
    return 0
