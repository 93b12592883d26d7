"""Memory of models that are done."""

import gc


def free_memory() -> None:
    """Give back what models held that nothing refers to any more: objects in cycles, and torch's cache on the GPU."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
