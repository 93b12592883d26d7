"""Fine-tune a decoder LM or an NLLB-like model on parallel data: generated pairs, FLORES, SMOL, UDHR, or your own.

The published recipe on four GPUs (Llama-3-8B, both directions):

    accelerate launch --config_file configs/zero3.yaml train.py --model_name_or_path meta-llama/Meta-Llama-3-8B \\
        --dataset_name_or_path topxgen --data_dir outputs/gemma-3-27b-it/nllb-200-3.3B --target_languages Basque Hausa \\
        --src English --reverse --targets_only --test_size_ratio 1000 --max_length 512 --max_steps 5000 \\
        --per_device_train_batch_size 4 --gradient_accumulation_steps 4 --learning_rate 1e-5 --num_warmup_steps 500 \\
        --weight_decay 0.01 --bf16 --gradient_checkpointing --output_dir outputs/llama-3-8b-topxgen

LoRA on one GPU: add --use_peft --lora_r 32 --lora_alpha 64 --learning_rate 1e-4. Without GPU or network (what
scripts/demo.sh runs):

    python train.py --model_name_or_path models/gemma-3-270m --dataset_name_or_path udhr --target_languages Basque \\
        --reverse --targets_only --use_peft --bf16 --learning_rate 3e-4 --max_steps 30 --output_dir outputs/demo/train

The best checkpoint lies in --output_dir itself, as a model that transformers, vLLM and datagen.py load. Killed? The same
command goes on from the last checkpoint. `--dry_run` shows the data as the model will see it, and loads no weights.
"""

import argparse
import atexit
import json
import os
import sys
from pathlib import Path

from comptra import languages, provenance
from comptra.arguments import FLAG, real, whole
from comptra.errors import UserError
from topxgen import training, training_sets
from topxgen.base_model import DECODER, LEFT_OUT, BaseModel, launched_with_deepspeed
from topxgen.packing import PACKINGS

MAIN = int(os.environ.get("RANK", 0)) == 0
# Flags that do not change what is learned: a run may go on with others. Batch sizes count by their product.
FREE = [
    "output_dir",
    "data_dir",
    "logging_steps",
    "eval_steps",
    "save_steps",
    "save_total_limit",
    "num_workers",
    "report_to",
    "export_dir",
    "export_formats",
    "eval_translation",
    "best_by",
    "early_stopping_patience",
    "gradient_checkpointing",
    "use_flash_attn",
    "use_liger_kernel",
    "deepspeed",
    "push_to_hub",
    "hub_model_id",
    "dry_run",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "languages_file",
    "trust_remote_code",
]
DEFAULT_STEPS = 1000


def json_object(text: str) -> dict:
    """An argparse type: options of another library, as a JSON object."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is no JSON object")
    return value


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )

    group = parser.add_argument_group("model")
    group.add_argument(
        "--model_name_or_path", required=True, metavar="MODEL", help="a Hub id or a folder; its config decides the path"
    )
    group.add_argument("--tokenizer_name_or_path", metavar="MODEL", help="[the model's]")
    group.add_argument("--eos_token_id", type=whole(0), metavar="ID", help="that ends an answer [the tokenizer's]")
    group.add_argument("--output_dir", type=Path, required=True, metavar="DIR")
    group.add_argument("--trust_remote_code", **FLAG, help="run code that comes with the model")

    group = parser.add_argument_group("data")
    group.add_argument(
        "--dataset_name_or_path",
        default="topxgen",
        metavar="NAME",
        help="topxgen (or ours), flores, smol, udhr (embedded); a jsonl, json, csv, tsv or parquet file, a folder of "
        "`datasets`, an export; a Hub id [%(default)s]",
    )
    group.add_argument(
        "--data_dir",
        type=Path,
        metavar="DIR",
        help="topxgen: holds {Language}_translate_filtered.jsonl; flores, smol: local copies in their publishers' layout",
    )
    group.add_argument("--src", default="English", metavar="LANGUAGE", help="[%(default)s]")
    group.add_argument("--target_languages", nargs="+", default=[], metavar="LANGUAGE", help="English names or codes")
    group.add_argument(
        "--languages_file", metavar="TSV", help="rows of your own, with the columns of comptra/languages.tsv"
    )
    group.add_argument("--reverse", **FLAG, help="train the other direction, too (after the split)")
    group.add_argument("--subset", metavar="CONFIG", help="of a Hub set; smol: smolsent or smoldoc")
    group.add_argument("--split", metavar="SPLIT", help="[train; flores, udhr: dev]")
    group.add_argument(
        "--input_column_name", default="prompt", metavar="COLUMN", help="source, or finished text [%(default)s]"
    )
    group.add_argument("--output_column_name", metavar="COLUMN", help="target [none: the input is finished text]")
    group.add_argument(
        "--percentile", type=real(0, 100), metavar="P", help="only pairs whose score is above the P-th percentile"
    )
    group.add_argument("--dataset_size", type=whole(-1), default=-1, metavar="N", help="pairs a language; -1: all")
    group.add_argument(
        "--strategy",
        choices=training_sets.STRATEGIES,
        default="soonest",
        help="which N: the first, the best scores, a random draw [%(default)s]",
    )
    group.add_argument(
        "--test_size_ratio",
        type=real(0),
        default=0.1,
        metavar="SHARE_OR_COUNT",
        help="held out: a share up to 1, a count above [%(default)s]",
    )
    group.add_argument("--streaming", **FLAG, help="never hold the data in memory (files and Hub sets)")
    group.add_argument("--shuffle_buffer", type=whole(1), default=5000, help="streaming [%(default)s]")
    group.add_argument(
        "--size_valid_set",
        type=whole(0),
        default=1000,
        metavar="N",
        help="streaming: the first pairs, which are held out [%(default)s]",
    )
    group.add_argument(
        "--num_of_sequences", type=whole(1), default=1000, help="streaming: pairs packed together [%(default)s]"
    )
    group.add_argument("--export_dir", type=Path, metavar="DIR", help="write the two sets there, too")
    group.add_argument(
        "--export_formats", nargs="+", choices=training_sets.FORMATS, default=list(training_sets.FORMATS), help="[all]"
    )
    group.add_argument("--seed", type=whole(0), default=122, help="[%(default)s]")
    group.add_argument("--dry_run", **FLAG, help="show counts, rows and the first texts, and leave")

    group = parser.add_argument_group("what is learned")
    group.add_argument("--targets_only", **FLAG, help="loss on the target and EOS alone (decoders)")
    group.add_argument("--max_length", type=whole(8), default=2048, metavar="TOKENS", help="of a row [%(default)s]")
    group.add_argument(
        "--packing",
        choices=PACKINGS,
        default="bestfit",
        help="decoders: best-fit without leaks; the old concatenate-and-cut; one pair a row [%(default)s]",
    )
    group.add_argument(
        "--template_key",
        default="14",
        help="decoders: number or name in comptra/prompts/templates.toml; none: input and output as they stand [%(default)s]",
    )
    group.add_argument("--neftune_noise_alpha", type=real(0), metavar="ALPHA", help="noise on the embeddings [off]")

    group = parser.add_argument_group("adapters and memory")
    group.add_argument("--use_peft", **FLAG, help="LoRA")
    group.add_argument("--lora_r", type=whole(1), default=16, help="[%(default)s]")
    group.add_argument("--lora_alpha", type=real(0), default=32, help="[%(default)s]")
    group.add_argument("--lora_dropout", type=real(0, 1), default=0.05, help="[%(default)s]")
    group.add_argument("--target_modules", nargs="+", metavar="NAME", help="[all linear layers]")
    group.add_argument("--use_dora", **FLAG, help="weight-decomposed LoRA")
    group.add_argument("--load_in_8bit", **FLAG, help="frozen weights in 8 bits (bitsandbytes)")
    group.add_argument("--load_in_4bit", **FLAG, help="in 4 bits, QLoRA")
    group.add_argument("--fp16", **FLAG)
    group.add_argument("--bf16", **FLAG)
    group.add_argument("--gradient_checkpointing", **FLAG, help="less memory, a third slower")
    group.add_argument("--use_flash_attn", **FLAG, help="flash attention, if installed")
    group.add_argument("--use_liger_kernel", **FLAG, help="Liger kernels (GPU)")
    group.add_argument("--deepspeed", metavar="JSON", help="a DeepSpeed config; or launch with configs/zero3.yaml")

    group = parser.add_argument_group("optimisation")
    group.add_argument("--max_steps", type=whole(-1), metavar="N", help=f"[{DEFAULT_STEPS}]")
    group.add_argument("--num_train_epochs", type=real(0.001), metavar="N", help="instead of --max_steps (which wins)")
    group.add_argument("--per_device_train_batch_size", type=whole(1), default=4, metavar="ROWS", help="[%(default)s]")
    group.add_argument("--per_device_eval_batch_size", type=whole(1), default=4, metavar="ROWS", help="[%(default)s]")
    group.add_argument("--gradient_accumulation_steps", type=whole(1), default=4, help="[%(default)s]")
    group.add_argument("--learning_rate", type=real(0), default=5e-6, help="[%(default)s]")
    group.add_argument("--min_learning_rate", type=real(0), help="where the schedule ends")
    group.add_argument("--lr_scheduler_type", choices=training.SCHEDULERS, default="cosine", help="[%(default)s]")
    group.add_argument("--lr_scheduler_kwargs", type=json_object, metavar="JSON", help='such as {"num_cycles": 2}')
    group.add_argument("--num_warmup_steps", type=whole(0), default=100, help="[%(default)s]")
    group.add_argument("--weight_decay", type=real(0), default=0.05, help="[%(default)s]")
    group.add_argument("--num_workers", type=whole(0), default=24, help="that load data, one a spare core at most [24]")

    group = parser.add_argument_group("checkpoints and evaluation")
    group.add_argument("--logging_steps", type=whole(1), default=10, help="[%(default)s]")
    group.add_argument("--eval_steps", type=whole(1), default=10, help="also at every save [%(default)s]")
    group.add_argument("--save_steps", type=whole(1), default=50, help="[%(default)s]")
    group.add_argument("--save_total_limit", type=whole(1), default=3, help="the best is kept, too [%(default)s]")
    group.add_argument(
        "--eval_translation",
        type=whole(0),
        default=0,
        metavar="N",
        help="translate so many held-out pairs of each direction at every evaluation: chrF++, BLEU [%(default)s]",
    )
    group.add_argument(
        "--best_by",
        choices=("loss", "chrf", "bleu"),
        help="what the best checkpoint has [chrf, without translations loss]",
    )
    group.add_argument(
        "--early_stopping_patience", type=whole(1), metavar="N", help="stop after N evaluations without a better one"
    )
    group.add_argument("--report_to", nargs="+", choices=("tensorboard", "wandb"), help="besides the log here [none]")
    group.add_argument("--push_to_hub", **FLAG, help="upload the best model, privately, when done (HF_TOKEN)")
    group.add_argument("--hub_model_id", metavar="ID", help="[the name of the output directory]")
    return parser


def say(line: str) -> None:
    """To the user, once: every process runs this script."""
    if MAIN:
        print(line, file=sys.stderr, flush=True)


def complain(line: str) -> None:
    """Errors are the business of whatever process has them."""
    rank = "" if MAIN else f"rank {os.environ['RANK']}: "
    print(rank + line, file=sys.stderr, flush=True)


def settle(args: argparse.Namespace) -> argparse.Namespace:
    """Defaults that depend on other flags. Raises UserError for flags that contradict each other."""
    args.max_steps = None if args.max_steps == -1 else args.max_steps
    if args.max_steps == 0:
        raise UserError("--max_steps 0 trains nothing; pass a number of steps, or -1 and --num_train_epochs")
    if args.max_steps is None and args.num_train_epochs is None:
        args.max_steps = DEFAULT_STEPS
    if args.max_steps is not None and args.num_train_epochs is not None:
        say(f"--max_steps {args.max_steps} wins over --num_train_epochs {args.num_train_epochs:g}")
        args.num_train_epochs = None
    args.src = languages.find(args.src, args.languages_file).name
    args.target_languages = [languages.find(name, args.languages_file).name for name in args.target_languages]
    if args.output_dir.resolve() == Path(args.model_name_or_path).resolve():
        raise UserError(f"--output_dir {args.output_dir} is the folder of the model that is trained; pass another one")
    if args.bf16 and args.fp16:
        raise UserError("--bf16 and --fp16 exclude each other; pass one of them")
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")  # what the config of accelerate launch says
    if launched in ("bf16", "fp16") and not (args.bf16 or args.fp16):
        setattr(args, launched, True)
    if args.deepspeed and launched_with_deepspeed():
        raise UserError(
            f"--deepspeed {args.deepspeed} and the config of accelerate launch both set DeepSpeed up: drop the flag, or "
            "launch with configs/four_gpus.yaml"
        )
    for flag in ("load_in_8bit", "load_in_4bit", "use_dora"):
        if getattr(args, flag) and not args.use_peft:
            raise UserError(f"--{flag} freezes the weights and trains an adapter: add --use_peft")
    if args.load_in_8bit and args.load_in_4bit:
        raise UserError("--load_in_8bit and --load_in_4bit exclude each other; pass one of them")
    if args.streaming and args.max_steps is None:
        raise UserError("--streaming does not know where an epoch ends; pass --max_steps instead of --num_train_epochs")
    if args.streaming and args.export_dir:
        raise UserError("--export_dir writes what is in memory; leave --streaming out")
    args.best_by = args.best_by or ("chrf" if args.eval_translation else "loss")
    if args.best_by != "loss" and not args.eval_translation:
        raise UserError(f"--best_by {args.best_by} needs translations; pass --eval_translation N")
    return args


def source_of(args: argparse.Namespace) -> training_sets.Source:
    return training_sets.Source(
        name=args.dataset_name_or_path,
        src=languages.find(args.src, args.languages_file),
        targets=tuple(languages.find(name, args.languages_file) for name in dict.fromkeys(args.target_languages)),
        data_dir=args.data_dir,
        subset=args.subset,
        split=args.split,
        input_column=args.input_column_name,
        output_column=args.output_column_name,
        percentile=args.percentile,
        dataset_size=args.dataset_size,
        strategy=args.strategy,
        seed=args.seed,
    )


def build_sets(args: argparse.Namespace) -> tuple[list, list, dict]:
    """(train pairs, test pairs, facts) of data that fits in memory."""
    pairs, facts = training_sets.load(source_of(args))
    if args.test_size_ratio:
        train, test = training_sets.split(pairs, args.test_size_ratio, args.seed)
    else:
        train, test = pairs, []
    if args.reverse:
        train, test = training_sets.reverse(train), training_sets.reverse(test)
    if not train:
        raise UserError(f"nothing to train on is left of {args.dataset_name_or_path}: {json.dumps(facts)}")
    return (
        train,
        test,
        {**facts, "train_pairs": len(train), "test_pairs": len(test), "sha256": fingerprint(train, test)},
    )


def fingerprint(train: list, test: list) -> str:
    """Of what is trained and tested on, in order."""
    lines = [f"{pair.src}\t{pair.tgt}\t{pair.source}\t{pair.target}" for pair in (*train, None, *test) if pair]
    return provenance.digest([str(len(train)), *lines])


def open_stream(args: argparse.Namespace) -> tuple[object, list, dict]:
    """(training stream, held-out pairs, facts): the first --size_valid_set pairs are held out."""
    from topxgen.streaming import windows

    stream = training_sets.stream(source_of(args))
    test = [pair for pairs in windows(stream.take(args.size_valid_set), 1000) for pair in pairs]
    if args.reverse:
        test = training_sets.reverse(test)
    rest = stream.skip(args.size_valid_set).shuffle(seed=args.seed, buffer_size=args.shuffle_buffer)
    return rest, test, {"streamed": args.dataset_name_or_path, "test_pairs": len(test), "sha256": fingerprint([], test)}


def settings_of(args: argparse.Namespace, facts: dict) -> dict:
    """What decides the model that comes out."""
    rows, _ = training.effective_batch(args)
    chosen = {name: value for name, value in vars(args).items() if name not in FREE}
    if args.lr_scheduler_type in training.ON_PLATEAU:  # then evaluations decide, too
        chosen |= {name: getattr(args, name) for name in ("eval_steps", "save_steps", "best_by", "eval_translation")}
    return {**chosen, "effective_batch_rows": rows, "data": facts["sha256"]}


def show_batch(args: argparse.Namespace) -> int:
    """Say how many rows a step has; the number."""
    rows, processes = training.effective_batch(args)
    say(
        f"a step has {rows} rows ({args.per_device_train_batch_size} a device x {args.gradient_accumulation_steps} accumulated "
        f"x {processes} processes)"
    )
    return rows


def show_rows(args: argparse.Namespace, model: BaseModel, encoded, rows) -> None:
    """How the data lies in rows, and the first texts as the model sees them."""
    tokens, batch = int(encoded.lengths.sum()), show_batch(args)
    width = args.max_length if model.kind == DECODER and args.packing != "none" else max(rows.lengths)
    steps = -(-len(rows) // batch)
    total = args.max_steps or -(-int(args.num_train_epochs * steps) // 1)
    say(
        f"{len(encoded)} training texts of {tokens} tokens (mean {tokens / max(1, len(encoded)):.0f}) in {len(rows)} rows of at "
        f"most {width}: {1 - tokens / (len(rows) * width):.1%} room left; an epoch has {steps} steps; {total} steps, {total / steps:.1f} epochs"
    )
    if total <= args.num_warmup_steps:
        say(f"--num_warmup_steps {args.num_warmup_steps}: the learning rate never gets to its top in {total} steps")
    if model.kind == DECODER and args.dry_run:
        for i in range(min(2, len(encoded))):
            ids, prompt = encoded[i].tolist(), int(encoded.prompts[i])
            learned = "(the loss lies here)" if args.targets_only else "(the loss lies on all)"
            say(
                f"--- text {i + 1}\n{model.tokenizer.decode(ids[:prompt])}\n--- {learned}\n{model.tokenizer.decode(ids[prompt:])}"
            )


def train(args: argparse.Namespace) -> int:
    from comptra.files import OutputLock

    args = settle(args)
    if "WORLD_SIZE" not in os.environ and not args.dry_run:
        training.one_gpu_or_launch()
    training.check_schedule(args)
    pairs, test, facts = open_stream(args) if args.streaming else build_sets(args)
    for line in training.funnel_lines(facts):
        say(line)
    if args.targets_only and not all(pair.src for pair in (*test, *(() if args.streaming else pairs))):
        raise UserError("--targets_only: text of one column has no target; pass --output_column_name, or drop the flag")
    if args.export_dir and MAIN:
        written = training_sets.export(pairs, test, args.export_dir, args.export_formats, args.languages_file)
        say(f"exported: {', '.join(map(str, written))}")
    model = BaseModel(args)
    if args.streaming:
        rows = model.streamed(pairs, test, say)
        if next(iter(rows), None) is None:
            raise UserError(
                f"nothing is left to train on after the first --size_valid_set {args.size_valid_set} pairs that fits "
                f"--max_length {args.max_length} tokens: lower the one or raise the other"
            )
        show_batch(args)
    else:
        encoded = model.encode(pairs)
        if not len(encoded):
            shortest = min(tokens for _, tokens in encoded.too_long)
            raise UserError(
                f"no pair is as short as --max_length {args.max_length} tokens; the shortest has {shortest}"
            )
        rows = model.rows(encoded)
        show_rows(args, model, encoded, rows)
    if args.dry_run:
        if not args.streaming:
            training.note_left_out(args, model, encoded, pairs, "training", say)
        return 0
    settings = json.loads(json.dumps(settings_of(args, facts), default=str))
    lock = OutputLock(args.output_dir) if MAIN else None
    try:
        training.check_output_dir(args.output_dir, settings)
        if training.is_finished(args.output_dir, say):
            return 0
        if MAIN:
            (args.output_dir / LEFT_OUT).unlink(missing_ok=True)
        if not args.streaming:
            training.note_left_out(args, model, encoded, pairs, "training", say)
        return training.run(args, model, rows, test, facts, settings, say)
    finally:
        if lock is not None:
            lock.release()


def main() -> int:
    args = build_parser().parse_args()
    try:
        return train(args)
    except UserError as error:
        complain(f"train.py: error: {error}")
        return error.exit_code
    except OSError as error:  # a full disk, a read-only file
        complain(
            f"train.py: error: {error}; the last whole checkpoint is on disk, and the same command goes on from there"
        )
        return 2
    except KeyboardInterrupt:
        say("\nstopped; the same command goes on from the last checkpoint")
        return 130


def leave(code: int) -> None:
    """End this process. Of several, threads of torch's process groups now and then abort Python while it tidies up,
    and a job that is done would count as failed."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    leave(main())
