"""Scores of translations by a COMET model (Rei et al. 2020), in an environment of its own (requirements-comet.txt).

    .venv-comet/bin/python topxgen/quality/comet_worker.py [CHECKPOINT]

Imports COMET and writes {"ready": its version}. With a checkpoint it then reads lines
{"segments": [{"src", "mt" and, for models that read them, "ref"}]} and writes {"scores": [...], "truncated": N} for each, in
order, N the number of segments of which COMET leaves something out; the model is loaded once. What goes wrong is {"error": ...}. Needs nothing else of this project; topxgen.quality.comet_models runs it.
"""

import json
import os
import sys
import warnings

BATCH_SIZE = 16  # COMET's own


class Inert:
    """Stands for whatever a checkpoint holds beside tensors and plain values: it does nothing."""

    def __new__(cls, *_, **__):
        return super().__new__(cls)

    def __init__(self, *_, **__): ...

    def __setstate__(self, state): ...


def load(path: str):
    """The model in a Lightning checkpoint. A checkpoint is a pickle; nothing in it is imported or called but tensors (torch's
    weights_only), and foreign classes, such as states of callbacks, become Inert. Raises ValueError if weights are missing: COMET
    would leave them random."""
    import torch
    from comet import load_from_checkpoint

    foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    with torch.serialization.safe_globals([(Inert, name) for name in foreign]):
        model = load_from_checkpoint(path)
        saved = torch.load(path, map_location="cpu", mmap=True)["state_dict"]
    if missing := sorted({name for name, _ in model.named_parameters()} - saved.keys()):
        raise ValueError(f"the checkpoint lacks {len(missing)} weights of the model, {missing[0]} first")
    return model


def is_truncated(model, segment: dict[str, str]) -> bool:
    """Whether COMET leaves out the end of a text, or, in models that read all texts as one sequence, of the sequence. COMET does not
    say so."""
    encoder, limit = model.encoder, model.encoder.max_positions
    texts = [encoder.tokenizer(text, verbose=False)["input_ids"] for text in segment.values()]
    if "input_segments" in model.hparams:
        separators = 1 + len(texts) * encoder.size_separator
        if sum(len(tokens) - 2 for tokens in texts) > limit - separators:
            return True
    return any(len(tokens) > limit - 2 for tokens in texts)


def main() -> None:
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not get between the lines

    def say(**line) -> None:
        out.write(json.dumps(line) + "\n")
        out.flush()

    warnings.simplefilter("ignore")
    os.environ.pop("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", None)
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
    try:
        from importlib.metadata import version

        import torch
        from comet import load_from_checkpoint  # noqa: F401 (other packages are named comet, too)

        say(ready=version("unbabel-comet"))
        if len(sys.argv) < 2:
            return
        model = load(sys.argv[1])
        gpus = int(torch.cuda.is_available())  # with two, COMET starts itself again
        for line in sys.stdin:
            segments = json.loads(line)["segments"]
            scores = model.predict(segments, batch_size=BATCH_SIZE, gpus=gpus, progress_bar=False).scores
            truncated = sum(is_truncated(model, segment) for segment in segments)
            say(scores=[float(score) for score in scores], truncated=truncated)
    except Exception as error:
        lines = [line.strip() for line in str(error).split("\n") if line.strip()] or ["no message"]
        # With GLOBAL: torch refuses to run a pickle's code.
        telling = next((line for line in lines if "GLOBAL" in line), lines[0])
        say(error=f"{type(error).__name__}: {telling[:300]}")
        raise


if __name__ == "__main__":
    main()
