"""Tiny COMET checkpoints with random weights, made by COMET's own classes; run by the Python of COMET's environment.

    .venv-comet/bin/python tests/support/tiny_comet.py FOLDER < texts

FOLDER gets `encoder`, and in the layout of the Hub `comet`, `qe` (referenceless), `kiwi` (unified, source only) and `xcomet`.

    .venv-comet/bin/python tests/support/tiny_comet.py FOLDER/comet scores < segments

prints the scores that COMET's own `predict` gives the segments, a JSON list.
"""

import json
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
SMALL = {"hidden_sizes": [24, 12], "dropout": 0.1, "validation_data": ["dev"]}


def build_encoder(folder: Path, texts: list[str]) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import XLMRobertaConfig, XLMRobertaTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator(
        texts, trainers.UnigramTrainer(vocab_size=400, special_tokens=special, unk_token="<unk>")
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = XLMRobertaTokenizerFast(tokenizer_object=tokenizer)
    fast.save_pretrained(folder)
    XLMRobertaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=514,
        type_vocab_size=1,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    ).save_pretrained(folder)


def build(folder: Path) -> None:
    import pytorch_lightning
    import torch
    import yaml
    from comet.models import str2model

    texts = sys.stdin.read().splitlines()
    build_encoder(folder / "encoder", texts)
    plain = {
        "encoder_model": "XLM-RoBERTa",
        "pretrained_model": str(folder / "encoder"),
        "load_pretrained_weights": False,
    }
    models = {
        "comet": ("regression_metric", {}),
        "qe": ("referenceless_regression_metric", {}),
        "kiwi": ("unified_metric", {"input_segments": ["mt", "src"], "layer_transformation": "sparsemax_patch"}),
        "xcomet": ("xcomet_metric", {"word_layer": 3}),
    }
    for number, (name, (kind, more)) in enumerate(models.items()):
        torch.manual_seed(number)
        hparams = plain | SMALL | more
        # As COMET's own loader does with the published hparams.yaml.
        softmax = {"layer_transformation": "softmax"} if "layer_transformation" in more else {}
        model = str2model[kind](**hparams | softmax)
        with torch.no_grad():  # fresh layers hardly differ from one another; make every weight and bias count
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
        trainer = pytorch_lightning.Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
        )
        trainer.strategy.connect(model)
        (folder / name / "checkpoints").mkdir(parents=True)
        trainer.save_checkpoint(folder / name / "checkpoints" / "model.ckpt")
        (folder / name / "hparams.yaml").write_text(yaml.safe_dump(hparams | {"class_identifier": kind}))


def scores(folder: Path) -> None:
    from comet import load_from_checkpoint

    model = load_from_checkpoint(str(folder / "checkpoints" / "model.ckpt"))
    segments = json.load(sys.stdin)
    predicted = model.predict(segments, batch_size=16, gpus=0, progress_bar=False).scores
    print("scores " + json.dumps([float(score) for score in predicted]))


if __name__ == "__main__":
    (scores if sys.argv[2:] else build)(Path(sys.argv[1]))
