"""Whether the models of a run fit into the memory of this machine's GPUs, or into its RAM where there are none."""

from collections.abc import Iterator
from dataclasses import replace

from topxgen.common import environment, needs
from topxgen.common.errors import UsageError
from topxgen.doctor import UNKNOWN, Finding, arithmetic, gb, note, ok, problem
from topxgen.doctor.checkpoints import Checkpoint
from topxgen.doctor.situation import Launch, Situation, runs_llm
from topxgen.experiments.chain import Command
from topxgen.inference import engine_args, gpu_groups

DEFAULT_LENGTH = 8192  # of --max_model_len, unless the model reads less
CPU_KV_CACHE = "VLLM_CPU_KVCACHE_SPACE"
FOUR_BITS = 0.5 + 1 / 64  # bytes of a weight by load_in_4bit, with a scale of eight bits for each 64
TIGHT = 0.85  # of a GPU's memory: activations come on top of what is counted
NOT_HERE = "the weights are not here, and the Hub was not asked or did not say their size"


def check(situation: Situation) -> Iterator[Finding]:
    """A finding that several commands share is listed once."""
    users: dict[Finding, list[str]] = {}
    for command in situation.commands:
        for name in models_of(command):
            for finding in _of_model(command, name, situation):
                users.setdefault(finding, []).append(command.name)
    lacking = [finding.subject for finding in users if finding.text == NOT_HERE]
    if lacking:
        text = f"{UNKNOWN}whether {', '.join(dict.fromkeys(lacking))} fits: {NOT_HERE}"
        yield note("memory", text, "run this where there is internet, without HF_HUB_OFFLINE")
    for finding, names in users.items():
        if finding.text != NOT_HERE:
            yield replace(finding, text=f"{', '.join(names)}: {finding.text}")
    yield from _others(situation)


def models_of(command: Command) -> list[str]:
    """Those whose size decides: a language model that runs here, or what is trained."""
    if command.stage != "train" and not runs_llm(command):
        return []
    names = command.args.model_name_or_path
    return names if isinstance(names, list) else [names] if names else []


def _of_model(command: Command, name: str, situation: Situation) -> Iterator[Finding]:
    asset = next((one for one in situation.assets if one.name == name), None)
    if asset is None:  # another stage makes it
        return
    checkpoint = situation.checkpoint(name)
    if checkpoint is None or not checkpoint.file_bytes:
        yield note(name, NOT_HERE)
        return
    memory = min((gpu.memory for gpu in situation.gpus.usable if gpu.memory), default=None)
    if situation.gpus.usable and memory is None:
        yield note(name, f"{UNKNOWN}the memory of the GPU is not listed; weights take {gb(checkpoint.loaded_bytes())}")
        return
    if command.stage == "train":
        yield _training(command, name, checkpoint, memory, situation)
    elif memory is None:
        yield _on_cpu(command, name, checkpoint, situation)
    elif command.args.inference_api == "hf":
        yield _spread(command, name, checkpoint, memory, situation)
    else:
        yield _vllm(command, name, checkpoint, memory, situation)


def float_bytes(command: Command) -> int | None:
    """Bytes of a number of the weights; None: as they are saved. vLLM's auto halves what was saved in float32."""
    if command.args.dtype == "float32":
        return 4
    return None if command.args.dtype == "auto" and command.args.inference_api == "hf" else 2


def length(command: Command, checkpoint: Checkpoint) -> int:
    """--max_model_len, or its default."""
    most = checkpoint.attention.max_positions if checkpoint.attention else None
    return command.args.max_model_len or min(DEFAULT_LENGTH, most or DEFAULT_LENGTH)


def _vllm(command: Command, name: str, checkpoint: Checkpoint, memory: int, situation: Situation) -> Finding:
    args, gpus = command.args, situation.gpus.usable
    weights, attention = checkpoint.loaded_bytes(float_bytes(command)), checkpoint.attention
    options = engine_args.parse(args.engine_args or ())
    pipeline = options.get("pipeline_parallel_size", 1)
    pipeline = pipeline if isinstance(pipeline, int) and pipeline > 0 else 1
    heads, share = attention.heads if attention else None, args.gpu_memory_utilization
    try:
        if args.data_parallel_size or args.tensor_parallel_size or len(gpus) == 1:
            split = gpu_groups.share_out(len(gpus), args.data_parallel_size, args.tensor_parallel_size, pipeline, heads)
        else:
            split = gpu_groups.by_memory(len(gpus), weights, memory, share, heads, pipeline)
    except UsageError as error:
        return problem(name, f"{error}", "lower --tensor_parallel_size or --data_parallel_size")
    size = split.tensor * pipeline
    usable = share * memory * size
    # vLLM refuses to start if others have taken of its share.
    busy = [gpu for gpu in gpus if gpu.used is not None and gpu.memory and gpu.memory - gpu.used < share * gpu.memory]
    what = f"weights {gb(weights)} on {split.engines} x {size} GPU of {gb(memory)}, of which vLLM takes {share:.0%}"
    if options.get("quantization"):
        return note(name, f"{what}; {UNKNOWN}what they take with quantization={options['quantization']}")
    if weights >= usable:
        remedy = "use more or larger GPUs (--tensor_parallel_size), --engine_args quantization=fp8, or a smaller model"
        return problem(name, f"{what}: they do not fit", remedy)
    if busy:
        free = min(gpu.memory - gpu.used for gpu in busy)
        remedy = f"wait, use other GPUs, or --gpu_memory_utilization {max(0.05, int(20 * free / memory) / 20):g}"
        return problem(name, f"{what}, but {gb(free)} are free on GPU {busy[0].index}: vLLM will not start", remedy)
    if attention is None:
        return note(name, f"{what}; {UNKNOWN}its KV cache")
    cache = str(options.get("kv_cache_dtype"))
    number_bytes = 1 if cache.startswith("fp8") else 2 if "16" in cache else float_bytes(command)
    return _with_cache(name, what, attention, length(command, checkpoint), usable - weights, number_bytes)


def _with_cache(
    name: str, what: str, attention: arithmetic.Attention, tokens: int, room: float, number_bytes: int
) -> Finding:
    """`room`: bytes for the KV cache."""
    each = attention.kv_bytes(tokens, number_bytes)
    what = f"{what}; KV cache {gb(each)} for a sequence of {tokens:,} tokens, {gb(room)} free for it"
    if each > room:
        shorter = (1 << power for power in range(20, 4, -1) if 1 << power < tokens)
        fits = next((n for n in shorter if attention.kv_bytes(n, number_bytes) <= room), None)
        remedy = f"--max_model_len {fits}" if fits else "use more or larger GPUs (--tensor_parallel_size)"
        return problem(name, f"{what}: not one fits", remedy)
    sequences = int(room / each)
    if sequences < 16:
        return note(name, f"{what}: {sequences} at a time, which is slow", "lower --max_model_len, or use more GPUs")
    return ok(name, f"{what}: {sequences:,} at a time")


def _spread(command: Command, name: str, checkpoint: Checkpoint, memory: int, situation: Situation) -> Finding:
    weights, count = checkpoint.loaded_bytes(float_bytes(command)), len(situation.gpus.usable)
    copies = command.args.data_parallel_size or 1
    what = f"weights {gb(weights)}, {copies} x on {count} GPU of {gb(memory)}"
    if weights * copies >= memory * count:
        remedy = "use more or larger GPUs, fewer copies (--data_parallel_size), or a smaller model"
        return problem(name, f"{what}: they do not fit", remedy)
    return ok(name, what)


def _on_cpu(command: Command, name: str, checkpoint: Checkpoint, situation: Situation) -> Finding:
    weights, free = checkpoint.loaded_bytes(float_bytes(command)), situation.free_ram
    cache = (environment.number(CPU_KV_CACHE, 0) or 2) * (1 << 30) if command.args.inference_api == "vllm" else 0
    copies = command.args.data_parallel_size or 1
    needed = copies * (weights + cache)
    and_cache = f" and a KV cache of {gb(cache)}" if cache else ""
    times = f", {copies} times," if copies > 1 else ""
    what = f"weights {gb(weights)}{and_cache}{times} on the CPU; {gb(free)} of RAM are free"
    if needed > free:
        remedy = f"use a GPU or a smaller model{f', or lower {CPU_KV_CACHE} (GiB)' if cache else ''}"
        return problem(name, f"{what}: they do not fit", remedy)
    if cache and checkpoint.attention is not None:
        tokens = length(command, checkpoint)
        each = checkpoint.attention.kv_bytes(tokens, float_bytes(command))
        if each > cache:
            remedy = f"raise {CPU_KV_CACHE} (GiB), or lower --max_model_len"
            return problem(name, f"{what}; a sequence of {tokens:,} tokens takes {gb(each)} of it", remedy)
        return ok(name, f"{what}; {gb(each)} of it for a sequence of {tokens:,} tokens")
    return ok(name, what)


def training_need(command: Command, checkpoint: Checkpoint, how: Launch) -> tuple[float, str]:
    """(bytes on each GPU, what they consist of)."""
    args = command.args
    where = "one process"
    if how.processes > 1:
        nodes = f" of {how.nodes} nodes" if how.nodes > 1 else ""
        where = f"{how.processes} GPUs{nodes}, {f'ZeRO-{how.zero}' if how.zero else 'each with all of it'}"
    if not args.use_peft:
        need = arithmetic.training_bytes(0, checkpoint.parameters, how.processes, how.zero)
        return need, f"full fine-tuning of {checkpoint.parameters / 1e9:.2f} B parameters, {where}"
    adapter = checkpoint.adapter_parameters(args.lora_r, args.target_modules)
    if args.load_in_4bit or args.load_in_8bit:
        frozen = checkpoint.quantized_bytes(FOUR_BITS if args.load_in_4bit else 1)
        in_float32 = ""
    else:
        frozen = checkpoint.loaded_bytes(2 if how.is_half else 4)
        in_float32 = "" if how.is_half else " in float32"
    about = "about " if checkpoint.used_experts < 1 else ""
    size = f"{UNKNOWN}its parameters" if adapter is None else f"{about}{adapter / 1e6:.1f} M parameters"
    need = arithmetic.training_bytes(frozen, adapter or 0, how.processes, how.zero)
    return need, f"LoRA of rank {args.lora_r} ({size}) on weights of {gb(frozen)}{in_float32}, {where}"


def _training(command: Command, name: str, checkpoint: Checkpoint, memory: int | None, situation: Situation) -> Finding:
    if not checkpoint.parameters:
        return note(name, f"{UNKNOWN}how many parameters it has: its weights are not safetensors")
    launched = situation.launch(command)
    need, how = training_need(command, checkpoint, launched)
    args, processes = command.args, launched.processes
    less = "--use_peft" if not args.use_peft else "--load_in_4bit" if launched.is_half else "--bf16"
    if memory is None:
        what = f"{how}: {gb(need)} on the CPU and activations; {gb(situation.free_ram)} of RAM are free"
        if need * processes / launched.nodes > situation.free_ram:
            return problem(name, f"{what}: it does not fit", f"use a GPU, a smaller model, or {less}")
        return ok(name, what)
    gpus = situation.training_gpus
    if processes > gpus:
        text = f"{processes} processes, {gpus} GPUs {f'of {launched.nodes} nodes' if launched.nodes > 1 else 'visible here'}"
        return note(name, f"{text}: {UNKNOWN}whether several machines are meant", f"--num_processes {gpus}")
    what = f"{how}: {gb(need)} on each GPU of {gb(memory)}, and activations"
    if need > memory:
        remedy = f"{less}, ZeRO-3 over more GPUs (configs/zero3.yaml), or a smaller model"
        return problem(name, f"{what}: it does not fit", remedy)
    if need > TIGHT * memory:
        return note(name, f"{what}: tight", "--gradient_checkpointing, --per_device_train_batch_size 1")
    return ok(name, what)


def _others(situation: Situation) -> Iterator[Finding]:
    """Encoders, metrics and translation models, which have the machine to themselves while they run."""
    named = {name for command in situation.commands for name in models_of(command)}
    named |= {situation.base_of(name) for name in named}
    memory = max((gpu.memory for gpu in situation.gpus.usable if gpu.memory), default=None)
    for asset in situation.assets:
        kinds = {need.kind for need in asset.needs}
        size = asset.size or situation.download_bytes(asset)
        if asset.name in named or not kinds & {needs.MODEL, needs.COMET} or not size:
            continue
        free, where = (situation.free_ram, "RAM free") if memory is None else (memory, "GPU memory")
        what = f"for {', '.join(asset.stages)}: {gb(size)} of files, {gb(free)} of {where}"
        if size > 4 * free:  # as int8, at the least
            yield problem(asset.name, f"{what}: it does not fit", "use a smaller model or a larger machine")
        elif size > free:
            yield note(asset.name, f"{what}: {UNKNOWN}whether it fits in the precision that it is loaded in")
