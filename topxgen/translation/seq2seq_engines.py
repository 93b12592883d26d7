"""The two engines that run encoder-decoder models: CTranslate2 (fast) and transformers (the reference).

An engine is told what to load, finds out whether that can be, and has
    load()                               load the model (and convert it, the first time)
    translate(work, prefix, num_beams, tick)   work: list of (most new tokens, rows of token ids); prefix: ids that each
                                         target begins with; gives, in the same shape, (token ids, mean
                                         log-probability) for each row
    compute_type, version, block_size    what it computes in; for the manifest; rows worth handing over at once
    close()                              free the model and its memory
"""

import gc
import logging
import os
from pathlib import Path

from topxgen.common.errors import UsageError, reason
from topxgen.common.hub import cannot_load
from topxgen.translation import TranslatorSettings

logger = logging.getLogger(__name__)

# Padded source tokens in a batch, times 5 beams in the decoder.
BATCH_TOKENS = {"cpu": 1024, "cuda": 8192}
# Sentences handed over at once: enough to sort by length, few enough that a kill undoes minutes at most.
BLOCK_SIZE = {"cpu": 256, "cuda": 8192}
MIN_BATCH_TOKENS = 256  # when memory runs out, batches are halved down to about this
DEFAULT_MAX_TOKENS = 512  # of models that state no limit


def read(name: str, trust_remote_code: bool):
    """(config, tokenizer, longest source in tokens) of an encoder-decoder checkpoint, its weights untouched.

    Raises UsageError when it is another architecture or lacks its tokenizer.
    """
    from transformers import AutoConfig, AutoTokenizer, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
        raise UsageError(f"{name} holds no model (no config.json); pass the folder of an encoder-decoder checkpoint")
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=trust_remote_code)
    except Exception as error:  # the Hub client raises dozens of types; the cause is in the message
        raise UsageError(cannot_load(name, error)) from None
    if not config.is_encoder_decoder:
        raise UsageError(
            f"{name} is a {config.model_type} model, no encoder-decoder such as NLLB; to back-translate with an LLM, leave "
            "--use_nllb out and pass it as --model_name_or_path"
        )
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise UsageError(
            f"{name}: its tokenizer does not load ({reason(error)}); are all tokenizer files there?"
        ) from None
    if config.model_type == "marian" and not config.share_encoder_decoder_embeddings:
        raise UsageError(
            f"{name} has a vocabulary for each side, which is not supported; pass a Marian checkpoint with a shared one"
        )
    if config.model_type == "m2m_100" and type(tokenizer).__name__.startswith("Nllb"):
        tokenizer = _with_languages(name, tokenizer, trust_remote_code)
    stated = [getattr(config, key, None) for key in ("max_position_embeddings", "n_positions")]
    limits = [limit for limit in (*stated, tokenizer.model_max_length) if limit and limit < 1 << 20]
    return config, tokenizer, min(limits, default=DEFAULT_MAX_TOKENS)


def _with_languages(name: str, tokenizer, trust_remote_code: bool):
    """NLLB's tokenizer with its language codes, which a bare SentencePiece model lacks without a word."""
    from transformers import AutoTokenizer
    from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES

    if "eng_Latn" in tokenizer.get_vocab():
        return tokenizer
    return AutoTokenizer.from_pretrained(
        name, extra_special_tokens=list(FAIRSEQ_LANGUAGE_CODES), trust_remote_code=trust_remote_code
    )


def vocabulary(tokenizer) -> dict[str, int]:
    """Ids by token, language names included (which M2M-100's tokenizer keeps apart)."""
    return {**tokenizer.get_vocab(), **getattr(tokenizer, "lang_token_to_id", {})}


class CTranslate2Engine:
    """CTranslate2 (https://opennmt.net/CTranslate2): all GPUs that are visible, else all cores.

    The checkpoint is converted once for each compute type, into `cache_dir`.
    """

    def __init__(self, settings: TranslatorSettings, config, tokenizer):
        _find_cublas()
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
        wanted = settings.nllb_compute_type
        self.compute_type = ("float16" if gpus else "int8") if wanted == "auto" else wanted
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
        self._translator = None

    def load(self) -> None:
        import ctranslate2

        folder = _converted(self._settings, self._config, self.compute_type)
        self._names = {number: token for token, number in vocabulary(self._tokenizer).items()}
        _check_vocabulary(folder, self._names)
        try:
            self._translator = ctranslate2.Translator(
                str(folder),
                device=self._device,
                device_index=list(range(self._gpus)) if self._gpus else 0,
                compute_type=self.compute_type,
                intra_threads=0 if self._gpus else len(os.sched_getaffinity(0)),
            )
        except (RuntimeError, ValueError) as error:
            raise UsageError(
                f"CTranslate2 could not load {folder} ({reason(error)}); if memory ran out pass --nllb_compute_type int8, "
                f"if the folder is damaged remove it and it is made again"
            ) from None

    def translate(self, work, prefix: list[int], num_beams: int, tick):
        def tokens_of(row: list[int]) -> list[str]:
            return [self._names[number] for number in row]

        while True:
            try:
                pending = [
                    self._translator.translate_batch(
                        [tokens_of(row) for row in rows],
                        [tokens_of(prefix)] * len(rows) if prefix else None,
                        beam_size=num_beams,
                        max_input_length=0,  # its default cuts at 1024 without a word
                        max_decoding_length=longest,
                        max_batch_size=max(self._batch_tokens, max(map(len, rows))),
                        batch_type="tokens",
                        return_scores=True,
                        asynchronous=True,
                    )
                    for longest, rows in work
                ]
                return [[self._read(result.result(), len(prefix), tick) for result in results] for results in pending]
            except RuntimeError as error:
                if "out of memory" not in str(error).lower() or self._batch_tokens < MIN_BATCH_TOKENS:
                    raise UsageError(
                        f"CTranslate2 failed ({reason(error)}); if memory ran out pass --nllb_compute_type int8"
                    ) from None
                self._batch_tokens //= 2

    def _read(self, result, skip: int, tick) -> tuple[list[int], float]:
        tick(1)
        return self._tokenizer.convert_tokens_to_ids(result.hypotheses[0][skip:]), result.scores[0]

    def close(self) -> None:
        if self._translator is not None:
            self._translator.unload_model()
            self._translator = None
            gc.collect()


def _find_cublas() -> None:
    """Load pip's CUDA 12 cuBLAS, which CTranslate2 needs and torch's CUDA 13 build does not bring."""
    import ctypes
    import importlib.util

    spec = importlib.util.find_spec("nvidia")
    for root in (spec.submodule_search_locations or []) if spec else []:
        for name in ("libcublasLt.so.12", "libcublas.so.12"):
            path = Path(root) / "cublas" / "lib" / name
            if path.is_file():
                ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def _converted(settings: TranslatorSettings, config, compute_type: str) -> Path:
    """The folder of the converted model, made now if it is not there."""
    import ctranslate2
    from filelock import FileLock

    source = Path(settings.nllb_name_or_path)
    name = f"{source.name}-{_fingerprint(source, config)}-{compute_type}"
    folder = Path(settings.cache_dir).expanduser() / "ctranslate2" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Jobs that start together wait for the first of them.
    with FileLock(folder.with_name(folder.name + ".lock")):
        if (folder / "model.bin").is_file():
            return folder
        logger.info(f"converting {settings.nllb_name_or_path} for CTranslate2 ({compute_type}), once: {folder}")
        partial = folder.with_name(folder.name + ".partial")
        try:
            converter = _converter()(
                settings.nllb_name_or_path,
                load_as_float16=compute_type not in ("float32", "int8"),
                low_cpu_mem_usage=True,
                trust_remote_code=settings.trust_remote_code,
            )
            converter.convert(str(partial), quantization=compute_type, force=True)
        except Exception as error:  # of transformers, safetensors, the converter; the cause is in the message
            if isinstance(error, OSError) and error.errno is not None:  # a full disk
                raise
            raise UsageError(
                f"CTranslate2 {ctranslate2.__version__} cannot convert {settings.nllb_name_or_path} ({reason(error)}); is the checkpoint "
                "whole? If so, pass --nllb_engine transformers"
            ) from None
        partial.rename(folder)
    return folder


def _converter():
    """CTranslate2's converter, with two misunderstandings between it and transformers 5 put right."""
    from ctranslate2.converters import TransformersConverter

    class Converter(TransformersConverter):
        def load_model(self, *args, **kwargs):
            model = super().load_model(*args, **kwargs)
            # T5 configurations now always say that embeddings are tied; whether the decoder's outputs are scaled,
            # which is what the converter wants to know, they say elsewhere. Else MADLAD-400's beams go wrong.
            if (scaled := getattr(model.config, "scale_decoder_outputs", None)) is not None:
                model.config.tie_word_embeddings = scaled
            return model

        def load_tokenizer(self, *args, **kwargs):
            tokenizer = super().load_tokenizer(*args, **kwargs)
            # M2M-100's language names are in no list that the converter reads, and would all become <unk>.
            complete = vocabulary(tokenizer)
            tokenizer.get_vocab = lambda: complete
            return tokenizer

    return Converter


def _check_vocabulary(folder: Path, names: dict[int, str]) -> None:
    """Raise UsageError when the converted model numbers its tokens in another way than the tokenizer (`names`)."""
    import json

    for name in ("shared_vocabulary.json", "source_vocabulary.json"):
        if (folder / name).is_file():
            converted = json.loads((folder / name).read_text(encoding="utf-8"))
            for number, token in names.items():
                if number < len(converted) and converted[number] != token:
                    raise UsageError(
                        f"{folder}: token {number} is {converted[number]!r}, but {token!r} for the tokenizer, which is not "
                        "this model's; remove the folder to have it made again, or pass --nllb_engine transformers"
                    )


def _fingerprint(source: Path, config) -> str:
    """Of the checkpoint: the Hub's commit, or names, sizes and times of a folder's files."""
    import hashlib

    if commit := getattr(config, "_commit_hash", None):
        return commit[:12]
    files = sorted(
        (path.name, path.stat().st_size, path.stat().st_mtime_ns)
        for path in source.iterdir()
        if path.suffix in (".safetensors", ".bin", ".json", ".model", ".spm")
    )
    return hashlib.sha256(repr(files).encode()).hexdigest()[:12]


class TransformersEngine:
    """`generate` in batches of like length; as exact as the checkpoint, several times slower than CTranslate2."""

    def __init__(self, settings: TranslatorSettings, config, tokenizer):
        import torch
        import transformers

        wanted = settings.nllb_compute_type
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self.compute_type = ("float16" if self._device == "cuda" else "float32") if wanted == "auto" else wanted
        if self.compute_type not in ("float16", "bfloat16", "float32"):
            raise UsageError(
                f"--nllb_compute_type {wanted} needs --nllb_engine ctranslate2; with transformers choose float16, bfloat16 "
                "or float32"
            )
        self.version = f"transformers {transformers.__version__} {self.compute_type} on {self._device}"
        self.block_size, self._batch_tokens = BLOCK_SIZE[self._device], BATCH_TOKENS[self._device]
        self._torch, self._tokenizer, self._settings = torch, tokenizer, settings
        self._model = None

    def load(self) -> None:
        import torch
        from transformers import AutoModelForSeq2SeqLM

        settings = self._settings
        try:
            model = AutoModelForSeq2SeqLM.from_pretrained(
                settings.nllb_name_or_path,
                dtype=getattr(torch, self.compute_type),
                trust_remote_code=settings.trust_remote_code,
            )
        except Exception as error:  # the Hub client raises dozens of types; the cause is in the message
            raise UsageError(cannot_load(settings.nllb_name_or_path, error)) from None
        self._model = model.to(self._device).eval()

    def translate(self, work, prefix: list[int], num_beams: int, tick):
        outputs = []
        for longest, rows in work:
            while True:
                try:
                    outputs.append(self._bucket(rows, longest, prefix, num_beams))
                    break
                except self._torch.OutOfMemoryError as error:
                    if self._batch_tokens < MIN_BATCH_TOKENS:
                        raise UsageError(f"{reason(error)}; pass a smaller --nllb_compute_type") from None
                    self._batch_tokens //= 2
                self._torch.cuda.empty_cache()
            tick(len(rows))
        return outputs

    def _bucket(self, rows: list[list[int]], longest: int, prefix: list[int], num_beams: int):
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        outputs: list = [None] * len(rows)
        batch: list[int] = []
        for i in order:
            if batch and (len(batch) + 1) * len(rows[i]) > self._batch_tokens:
                self._batch(batch, rows, longest, prefix, num_beams, outputs)
                batch = []
            batch.append(i)
        if batch:
            self._batch(batch, rows, longest, prefix, num_beams, outputs)
        return outputs

    def _batch(self, batch, rows, longest, prefix, num_beams, outputs) -> None:
        torch, model = self._torch, self._model
        inputs = self._tokenizer.pad({"input_ids": [rows[i] for i in batch]}, return_tensors="pt").to(self._device)
        with torch.inference_mode():
            result = model.generate(
                **inputs,
                num_beams=num_beams,
                # As CTranslate2: the search ends when as many hypotheses are finished as there are beams.
                early_stopping=num_beams > 1,
                do_sample=False,
                max_new_tokens=longest,
                max_length=None,
                forced_bos_token_id=prefix[0] if prefix else None,
                forced_eos_token_id=None,  # of Marian; CTranslate2 does not end an answer by force
                return_dict_in_generate=True,
                output_scores=True,
            )
        scores = result.sequences_scores.tolist() if num_beams > 1 else [0.0] * len(batch)
        for i, ids, score in zip(batch, result.sequences[:, 1 + len(prefix) :].tolist(), scores, strict=True):
            outputs[i] = (ids, score)

    def close(self) -> None:
        self._model = None
        gc.collect()
        if self._torch.cuda.is_available():
            self._torch.cuda.empty_cache()
