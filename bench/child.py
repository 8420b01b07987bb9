"""What runs in a process of its own: open a saved model with one library, and say what that took.

    python bench/child.py (patchclamp | hugging-face | transformer-lens) FOLDER (open | look)

`open` loads the model; `look` also runs eight tokens and keeps one block's output. The libraries are imported before the
clock is read, since a session pays for imports once. Prints JSON: CPU seconds of the call, peak memory of the process in MB.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable


def patchclamp(folder: str, look: bool) -> Callable[[], object]:
    import torch
    import transformers.models.gpt2.modeling_gpt2  # noqa: F401

    import patchclamp as pc

    pc.load, pc.Model  # noqa: B018  names are found when they are first used

    def work():
        model = pc.load(folder)
        return model.run(torch.arange(8)[None], keep="blocks.6.out") if look else model

    return work


def hugging_face(folder: str, look: bool) -> Callable[[], object]:
    import torch
    import transformers.models.gpt2.modeling_gpt2  # noqa: F401
    from transformers import AutoModelForCausalLM

    def work():
        model = AutoModelForCausalLM.from_pretrained(folder)
        with torch.no_grad():
            return model(torch.arange(8)[None], use_cache=False) if look else model

    return work


def transformer_lens(folder: str, look: bool) -> Callable[[], object]:
    import torch
    from transformer_lens.model_bridge import TransformerBridge

    def work():
        model = TransformerBridge.boot_transformers(folder, device="cpu")
        with torch.no_grad():
            return model.run_with_cache(torch.arange(8)[None], names_filter="blocks.6.hook_resid_post") if look else model

    return work


def peak() -> float:
    """The most memory this process has held, in MB. `ru_maxrss` comes second: Linux hands it down from the parent."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(who: str, folder: str, how: str) -> None:
    work = {"patchclamp": patchclamp, "hugging-face": hugging_face, "transformer-lens": transformer_lens}[who](
        folder, how == "look"
    )
    held, started = peak(), time.process_time()
    result = work()
    told = {"call": time.process_time() - started, "grew": peak() - held, "peak": peak()}
    print()
    print(json.dumps(told), flush=True)
    del result


if __name__ == "__main__":
    main(*sys.argv[1:])
