"""The two engines that run encoder-decoder models: CTranslate2 (fast) and transformers (the reference).

An engine is built of (settings, config, tokenizer), checks whether it can run here, and has
    load()                               load the model (CTranslate2: convert it the first time)
    translate(work, prefix, num_beams, count, on_done)   work: list of (maximum new tokens, rows of token ids, longest
                                         first); prefix: ids that each target begins with; returns, in the same shape, the
                                         `count` best (token ids, mean log-probability) for each row; on_done(n): n more
                                         rows are finished
    compute_type, version, block_size    the precision; a description for manifests; how many rows to pass at once
    close()                              free the model and its memory
"""

import ctypes
import json
import logging
import os
import shutil
from collections.abc import Callable
from os.path import expanduser
from pathlib import Path

from topxgen.common.errors import UsageError, reason
from topxgen.common.files import read_json, replacing_folder, write_json
from topxgen.common.hub import hub_call
from topxgen.common.locks import wait_for_lock
from topxgen.common.provenance import digest, weights_id
from topxgen.common.weights import free_memory, load_weights
from topxgen.inference.neutral_decoding import neutral_decoding
from topxgen.translation import TranslatorSettings

logger = logging.getLogger(__name__)

BATCH_TOKENS = {"cpu": 1024, "cuda": 8192}  # padded source tokens in a batch; the decoder has 5 beams for each
# Sentences passed at once: enough to sort by length, few enough that a kill loses minutes at most.
BLOCK_SIZE = {"cpu": 256, "cuda": 8192}
MIN_BATCH_TOKENS = 256  # if memory runs out, batches are halved down to about this
# What is in the cache: version 1, without a list of its files, has conversions of incomplete checkpoints, too, and version 2 float32
# weights in the precision that config.json names.
CONVERSION_VERSION, CONTENTS = 4, "conversion.json"
DEFAULT_MAX_TOKENS = 512  # for models that state no limit
Work = list[tuple[int, list[list[int]]]]
Output = list[tuple[list[int], float]]  # of a row, best first
Outputs = list[list[Output]]


def read_checkpoint(name: str, trust_remote_code: bool):
    """(config, tokenizer, maximum source tokens) of an encoder-decoder checkpoint; no weights are loaded.

    Raises UsageError for another architecture or a missing tokenizer.
    """
    from transformers import AutoConfig, AutoTokenizer, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        if (Path(name) / "adapter_config.json").is_file():
            raise UsageError(
                f"{name} is a LoRA adapter: merge it into its base (scripts/merge_lora.py), and pass the result"
            )
        raise UsageError(f"{name} holds no model (no config.json); pass the folder of an encoder-decoder checkpoint")
    config = hub_call(name, lambda: AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code))
    if not config.is_encoder_decoder:
        raise UsageError(
            f"{name} is a {config.model_type} model, not an encoder-decoder such as NLLB; to back-translate with an LLM, "
            "omit --use_nllb and pass it as --model_name_or_path"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
    except Exception as error:  # of transformers, tokenizers, sentencepiece; the cause is in the message
        raise UsageError(
            f"{name}: its tokenizer does not load ({reason(error)}); are all tokenizer files in the folder?"
        ) from None
    if config.model_type == "marian" and not config.share_encoder_decoder_embeddings:
        raise UsageError(
            f"{name} has separate source and target vocabularies, which is not supported; pass a Marian checkpoint with a "
            "shared one"
        )
    if config.model_type == "m2m_100" and type(tokenizer).__name__.startswith("Nllb"):
        tokenizer = _with_language_codes(name, tokenizer, trust_remote_code)
    stated = [getattr(config, key, None) for key in ("max_position_embeddings", "n_positions")]
    limits = [limit for limit in (*stated, tokenizer.model_max_length) if limit and limit < 1 << 20]
    return config, tokenizer, min(limits, default=DEFAULT_MAX_TOKENS)


def _with_language_codes(name: str, tokenizer, trust_remote_code: bool):
    """NLLB's tokenizer with its language codes, which a bare SentencePiece model lacks (they would become <unk>)."""
    from transformers import AutoTokenizer
    from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES

    if "eng_Latn" in tokenizer.get_vocab():
        return tokenizer
    return AutoTokenizer.from_pretrained(
        name, extra_special_tokens=list(FAIRSEQ_LANGUAGE_CODES), trust_remote_code=trust_remote_code
    )


def vocabulary(tokenizer) -> dict[str, int]:
    """Ids by token, language tokens included (M2M-100's tokenizer keeps them separately)."""
    return {**tokenizer.get_vocab(), **getattr(tokenizer, "lang_token_to_id", {})}


class CTranslate2Engine:
    """CTranslate2 (https://opennmt.net/CTranslate2) on all visible GPUs, else on all cores.

    The checkpoint is converted once for each compute type, into `cache_dir`, unless it is in the folder `converted` already.
    """

    def __init__(self, settings: TranslatorSettings, config, tokenizer, converted: Path | None = None):
        for path in cublas_files():  # CTranslate2 needs that of CUDA 12, which torch's CUDA 13 build does not include
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
        try:
            import ctranslate2
        except ImportError as error:
            raise UsageError(
                f"the ctranslate2 engine does not import ({error}): pip install 'ctranslate2>=4.8', or pass "
                "--nllb_engine transformers"
            ) from None
        gpus = ctranslate2.get_cuda_device_count()
        device = "cuda" if gpus else "cpu"
        supported = ctranslate2.get_supported_compute_types(device)
        self.compute_type = settings.nllb_compute_type
        if self.compute_type == "auto":
            self.compute_type = "float16" if gpus else "int8"
        if self.compute_type not in supported:
            raise UsageError(
                f"--nllb_compute_type {self.compute_type} does not run on this {'GPU' if gpus else 'CPU'}; choose one of "
                f"{', '.join(sorted(supported))}"
            )
        self.version = (
            f"CTranslate2 {ctranslate2.__version__} {self.compute_type} on {f'{gpus} GPU' if gpus else 'CPU'}"
        )
        self.block_size = BLOCK_SIZE[device] * max(1, gpus)
        self._tokenizer, self._batch_tokens = tokenizer, BATCH_TOKENS[device]
        self._settings, self._config, self._device, self._gpus = settings, config, device, gpus
        self._translator, self._folder = None, converted

    def load(self) -> None:
        import ctranslate2

        folder = self._folder or _converted(self._settings, self._config, self.compute_type)
        self._token_names = {number: token for token, number in vocabulary(self._tokenizer).items()}
        _check_vocabulary(folder, self._token_names)
        try:
            self._translator = ctranslate2.Translator(
                str(folder),
                device=self._device,
                device_index=list(range(self._gpus)) if self._gpus else 0,
                compute_type=self.compute_type,
                intra_threads=0 if self._gpus else _cpu_threads(),
                max_queued_batches=-1,  # no limit: requests are queued at once, then results are read as they finish
            )
        except (RuntimeError, ValueError) as error:
            raise UsageError(
                f"CTranslate2 could not load {folder} ({reason(error)}); if memory ran out, pass --nllb_compute_type int8; if "
                "the folder is damaged, remove it to convert the model again"
            ) from None

    def translate(
        self, work: Work, prefix: list[int], num_beams: int, count: int, on_done: Callable[[int], None]
    ) -> Outputs:
        reported = 0
        while True:
            try:
                pending = [self._submit(rows, longest, prefix, num_beams, count) for longest, rows in work]
                outputs, finished = [], 0
                for results in pending:
                    outputs.append([])
                    for result in results:
                        outputs[-1].append(self._read(result.result(), len(prefix)))
                        finished += 1
                        if finished > reported:  # not again for what a run short of memory had finished
                            reported = finished
                            on_done(1)
                return outputs
            except RuntimeError as error:
                if "out of memory" not in str(error).lower() or self._batch_tokens < MIN_BATCH_TOKENS:
                    raise UsageError(
                        f"CTranslate2 failed ({reason(error)}); if memory ran out, pass --nllb_compute_type int8"
                    ) from None
                self._batch_tokens //= 2

    def _submit(self, rows: list[list[int]], longest: int, prefix: list[int], num_beams: int, count: int) -> list:
        return self._translator.translate_batch(
            [self._tokens(row) for row in rows],
            [self._tokens(prefix)] * len(rows) if prefix else None,
            beam_size=num_beams,
            num_hypotheses=count,
            max_input_length=0,  # the default silently truncates at 1024
            max_decoding_length=longest,
            max_batch_size=max(self._batch_tokens, max(map(len, rows))),
            batch_type="tokens",
            return_scores=True,
            asynchronous=True,
        )

    def _tokens(self, ids: list[int]) -> list[str]:
        return [self._token_names[number] for number in ids]

    def _read(self, result, skip: int) -> Output:
        ids = [self._tokenizer.convert_tokens_to_ids(tokens[skip:]) for tokens in result.hypotheses]
        return list(zip(ids, result.scores, strict=True))

    def close(self) -> None:
        if self._translator is not None:
            self._translator.unload_model()
            self._translator = None
            free_memory()


def _cpu_threads() -> int:
    """OMP_NUM_THREADS, as torch; by default one for each core that this process may use."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return int(threads) if threads.isdigit() and int(threads) else len(os.sched_getaffinity(0))


def cublas_files() -> list[Path]:
    """pip's CUDA 12 cuBLAS, in the order in which it is loaded."""
    import importlib.util

    spec = importlib.util.find_spec("nvidia")
    roots = (spec.submodule_search_locations or []) if spec else []
    paths = [Path(root, "cublas", "lib", name) for root in roots for name in ("libcublasLt.so.12", "libcublas.so.12")]
    return [path for path in paths if path.is_file()]


def _converted(settings: TranslatorSettings, config, compute_type: str) -> Path:
    """The folder of the converted model, which is converted now if necessary."""
    source = Path(settings.nllb_name_or_path)
    version = getattr(config, "_commit_hash", None)
    if not version:  # a folder: the conversion depends on weights and configuration
        file = source / "config.json"
        version = digest([weights_id(source), file.read_text("utf-8") if file.is_file() else ""])
    name = f"{source.name}-{version[:12]}-{compute_type}"
    folder = Path(expanduser(settings.cache_dir)) / "ctranslate2" / name
    if _is_whole(folder):
        return folder
    # Of jobs that start together the first converts, the others wait.
    with wait_for_lock(folder.parent, name, flag="--cache_dir"):
        if _is_whole(folder):
            return folder
        logger.info(f"converting {settings.nllb_name_or_path} for CTranslate2 ({compute_type}, once): {folder}")
        with replacing_folder(folder) as partial:
            convert(settings.nllb_name_or_path, partial, compute_type, settings.trust_remote_code)
            sizes = {path.name: path.stat().st_size for path in partial.iterdir()}
            write_json(partial / CONTENTS, {"version": CONVERSION_VERSION, "files": sizes})
            if folder.exists():
                shutil.rmtree(folder)
    return folder


def convert(name: str, folder: Path, compute_type: str, trust_remote_code: bool = False) -> None:
    """Write an encoder-decoder checkpoint to `folder` as a CTranslate2 model. Raises UsageError if it is incomplete or of an
    architecture that CTranslate2 does not know."""
    import ctranslate2

    try:
        converter = _converter()(
            name,
            load_as_float16=compute_type not in ("float32", "int8"),
            low_cpu_mem_usage=True,
            trust_remote_code=trust_remote_code,
        )
        converter.convert(str(folder), quantization=compute_type, force=True)
    except UsageError:
        raise
    except Exception as error:  # of transformers, safetensors, the converter; the cause is in the message
        if isinstance(error, OSError) and error.errno is not None:  # a full disk
            raise
        raise UsageError(
            f"CTranslate2 {ctranslate2.__version__} cannot convert {name} ({reason(error)}); check that the checkpoint is complete, or pass "
            "--nllb_engine transformers"
        ) from None


def _is_whole(folder: Path) -> bool:
    """Whether all files of a conversion by this version are there: a purge of scratch space may take some of them."""
    try:
        contents = read_json(folder / CONTENTS)
        files = {folder / name: size for name, size in contents["files"].items()}
        return contents["version"] == CONVERSION_VERSION and all(p.stat().st_size == size for p, size in files.items())
    except (UsageError, LookupError, AttributeError, TypeError, FileNotFoundError):
        return False


def _converter():
    """CTranslate2's converter, that refuses incomplete checkpoints, with a fix for an incompatibility with transformers 5."""
    import torch
    from ctranslate2.converters import TransformersConverter

    class Converter(TransformersConverter):
        def load_model(self, model_class, name, **kwargs):
            if not self._load_as_float16:  # rather than as config.json says: the weights may have another precision
                kwargs["dtype"] = torch.float32
            model = load_weights(model_class, name, **kwargs)
            first = model.get_input_embeddings().weight[model.config.decoder_start_token_id]
            if (
                model.config.model_type == "marian" and first.any()
            ):  # zeros in published ones; training all weights changes them
                raise UsageError(
                    f"{name}: its decoder starts from an embedding of <pad> that was trained, CTranslate2's from zeros; pass "
                    "--nllb_engine transformers"
                )
            return model

        def load_tokenizer(self, *args, **kwargs):
            tokenizer = super().load_tokenizer(*args, **kwargs)
            # The converter misses M2M-100's language tokens, which would all become <unk>.
            complete = vocabulary(tokenizer)
            tokenizer.get_vocab = lambda: complete
            return tokenizer

    return Converter


def _check_vocabulary(folder: Path, names: dict[int, str]) -> None:
    """Raise UsageError if token ids of the converted model differ from the tokenizer's (`names`)."""
    for name in ("shared_vocabulary.json", "source_vocabulary.json"):
        if (folder / name).is_file():
            converted = json.loads((folder / name).read_text(encoding="utf-8"))
            for number, token in names.items():
                if number < len(converted) and converted[number] != token:
                    raise UsageError(
                        f"{folder}: token {number} is {converted[number]!r}, but {token!r} for the tokenizer, which is not "
                        "this model's; remove the folder to convert the model again, or pass --nllb_engine transformers"
                    )


class TransformersEngine:
    """`generate` in batches of similar length; the reference, several times slower than CTranslate2."""

    def __init__(self, settings: TranslatorSettings, config, tokenizer):
        import torch
        import transformers

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self.compute_type = settings.nllb_compute_type
        if self.compute_type == "auto":
            self.compute_type = "float16" if self._device == "cuda" else "float32"
        if self.compute_type not in ("float16", "bfloat16", "float32"):
            raise UsageError(
                f"--nllb_compute_type {self.compute_type} needs --nllb_engine ctranslate2; with transformers choose float16, bfloat16 "
                "or float32"
            )
        self.version = f"transformers {transformers.__version__} {self.compute_type} on {self._device}"
        self.block_size, self._batch_tokens = BLOCK_SIZE[self._device], BATCH_TOKENS[self._device]
        self._torch, self._tokenizer, self._settings = torch, tokenizer, settings
        self._model = None

    def load(self) -> None:
        import torch
        from transformers import AutoModelForSeq2SeqLM

        name, options = self._settings.nllb_name_or_path, dict(trust_remote_code=self._settings.trust_remote_code)
        dtype = getattr(torch, self.compute_type)
        model = hub_call(name, lambda: load_weights(AutoModelForSeq2SeqLM, name, dtype=dtype, **options))
        self._model = model.to(self._device).eval()

    def translate(
        self, work: Work, prefix: list[int], num_beams: int, count: int, on_done: Callable[[int], None]
    ) -> Outputs:
        return [self._bucket(rows, longest, prefix, num_beams, count, on_done) for longest, rows in work]

    def _bucket(self, rows, longest: int, prefix: list[int], num_beams: int, count: int, on_done) -> list[Output]:
        outputs: list = [None] * len(rows)
        waiting = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        while waiting:
            size = 1
            while size < len(waiting) and (size + 1) * len(rows[waiting[size]]) <= self._batch_tokens:
                size += 1
            batch = waiting[:size]
            results = None
            try:
                results = self._batch([rows[i] for i in batch], longest, prefix, num_beams, count)
            except self._torch.OutOfMemoryError as error:
                if self._batch_tokens < MIN_BATCH_TOKENS:
                    raise UsageError(f"{reason(error)}; pass a smaller --nllb_compute_type") from None
                self._batch_tokens //= 2
            if results is None:  # here the error no longer holds the tensors
                self._torch.cuda.empty_cache()
                continue
            for i, result in zip(batch, results, strict=True):
                outputs[i] = result
            del waiting[:size]
            on_done(size)
        return outputs

    def _batch(self, rows, longest: int, prefix: list[int], num_beams: int, count: int) -> list[Output]:
        inputs = self._tokenizer.pad({"input_ids": rows}, return_tensors="pt").to(self._device)
        with self._torch.inference_mode(), neutral_decoding(self._model):
            result = self._model.generate(
                **inputs,
                num_beams=num_beams,
                num_return_sequences=count,
                # As CTranslate2: the search ends when as many hypotheses are finished as there are beams.
                early_stopping=num_beams > 1,
                do_sample=False,
                max_new_tokens=longest,
                forced_bos_token_id=prefix[0] if prefix else None,
                return_dict_in_generate=True,
                output_scores=True,
            )
        scores = result.sequences_scores.tolist() if num_beams > 1 else [0.0] * len(rows)
        outputs = list(zip(result.sequences[:, 1 + len(prefix) :].tolist(), scores, strict=True))
        return [outputs[i : i + count] for i in range(0, len(outputs), count)]

    def close(self) -> None:
        self._model = None
        free_memory()
