"""What the checks examine: the commands of a run file, and this machine."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import psutil

from topxgen.common import hub, hub_files, schemas
from topxgen.common.console import quiet
from topxgen.common.errors import UsageError
from topxgen.common.files import read_json
from topxgen.common.needs import DATASET, MODEL, Need
from topxgen.common.provenance import values_of_flag
from topxgen.common.schemas import fields
from topxgen.doctor import UNKNOWN, checkpoints, gpus
from topxgen.experiments import stages
from topxgen.experiments.assets import Asset, assets, followed
from topxgen.experiments.chain import Command
from topxgen.inference.costs import Estimate

OFFLINE = ("", "0", "false", "no", "off")  # values of HF_HUB_OFFLINE that are no
CGROUP = Path("/sys/fs/cgroup")
ANSWER_S = 8.0  # for all questions of a kind to the Hub together


@dataclass
class Situation:
    """`commands`: of the run, none for the machine alone; `given`: GPUs of another machine; `nodes`: of a SLURM job that trains, with
    `gpus_per_node`, if the run file says how many."""

    commands: Sequence[Command] = ()
    given: gpus.GPUs | None = None
    nodes: int = 1
    gpus_per_node: int | None = None
    checkpoints_read: dict[Path, checkpoints.Checkpoint | None] = field(default_factory=dict)

    @cached_property
    def gpus(self) -> gpus.GPUs:
        return self.given or gpus.find()

    @property
    def training_gpus(self) -> int:
        """Of all nodes together."""
        return self.nodes * (self.gpus_per_node or len(self.gpus.usable))

    def launch(self, command: Command) -> "Launch":
        """Raises UsageError for files that cannot be read."""
        return launch(command, self.training_gpus or self.nodes, self.nodes)

    @cached_property
    def assets(self) -> list[Asset]:
        return assets(self.commands)

    @cached_property
    def estimates(self) -> list[tuple[Command, Estimate]]:
        """What the commands will need, as far as that can be found out in seconds and without a network. Paragraphs that variants of an
        experiment share are generated once, by the first of their commands."""
        found, generated = [], set()
        with hub.offline(), quiet():
            for command in self.commands:
                for one in self._estimates_of(command):
                    place = (command.args.output_dir, one) if one.stage == "generate" else None
                    if place not in generated:
                        found.append((command, one))
                        generated |= {place} - {None}
        return found

    def _estimates_of(self, command: Command) -> list[Estimate]:
        estimates = stages.STAGES[command.stage].function("estimates")
        if estimates is None:
            return [Estimate(command.stage, "")]
        lacking = [one for one in self.assets if one.kind == DATASET and command.stage in one.stages and one.problem]
        if command.stage == "main" and lacking:
            return [Estimate(command.stage, f"{UNKNOWN}{lacking[0].name} is not here")]
        try:
            return estimates(copy(command.args))
        except UsageError as error:
            made = [str(one.args.output_dir) for one in self.stage("train") if f"'{one.args.output_dir}'" in str(error)]
            return [Estimate(command.stage, f"{UNKNOWN}{f'{made[0]} is not trained yet' if made else error}")]

    @cached_property
    def offline(self) -> bool:
        """As the user set it: check_connection sets the variable, too."""
        return any(
            os.environ.get(name, "").lower() not in OFFLINE for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
        )

    @cached_property
    def asks_hub(self) -> bool:
        """Whether the Hub may be asked, and answers."""
        if self.offline:
            return False
        from huggingface_hub import constants

        hub.check_connection()
        return not constants.HF_HUB_OFFLINE

    @cached_property
    def free_ram(self) -> int:
        """Bytes that processes may still take, the limit of a container or a SLURM job included."""
        free = psutil.virtual_memory().available
        try:
            limit, used = ((CGROUP / name).read_text().strip() for name in ("memory.max", "memory.current"))
            return min(free, int(limit) - int(used)) if limit != "max" else free
        except (OSError, ValueError):
            return free

    def checkpoint(self, name: str | None) -> checkpoints.Checkpoint | None:
        """The model that a flag names, of an adapter its base; None if it is neither here nor listed by the Hub, or a stage makes it."""
        folder = self._folder(name)
        if (base := self.base_of(name)) not in (None, name):
            return self.checkpoint(base)
        if folder is None or not folder.is_dir():
            return self.at_hub[name].checkpoint if name in self.at_hub else None
        if folder not in self.checkpoints_read:
            self.checkpoints_read[folder] = checkpoints.read(folder)
        return self.checkpoints_read[folder]

    def _folder(self, name: str | None) -> Path | None:
        return next((one.folder for one in self.assets if one.name == name and one.folder is not None), None)

    def base_of(self, name: str | None) -> str | None:
        """Of an adapter that is here; None for another model."""
        return next((need.name for need in followed(Need(MODEL, name or ""), self._folder(name))), None)

    def checkpoint_behind(self, name: str | None) -> checkpoints.Checkpoint | None:
        """`checkpoint`; of a model that the run trains or merges, that from which it is made, which is as large."""
        made = {one.args.output_dir: one.args.model_name_or_path for one in self.stage("train")}
        made |= {one.args.output: one.args.adapter for one in self.stage("merge")}
        while name and Path(name) in made:
            name = made.pop(Path(name))
        return self.checkpoint(name)

    @cached_property
    def at_hub(self) -> dict[str, checkpoints.Listed]:
        """What is to be downloaded, as the Hub lists it; without the repositories for which it does not answer within ANSWER_S."""
        wanted = [one for one in self.assets if one.problem == hub.NOT_DOWNLOADED and one.is_on_hub]
        wanted = wanted if self.asks_hub else []
        shaped = {command.args.model_name_or_path for command in self.stage("train") if command.args.use_peft}
        pool = ThreadPoolExecutor(8)
        asked = {one.name: pool.submit(checkpoints.at_hub, one, one.name in shaped, ANSWER_S) for one in wanted}
        wait(asked.values(), timeout=ANSWER_S)
        pool.shutdown(wait=False, cancel_futures=True)
        return {name: job.result() for name, job in asked.items() if job.done() and not job.exception()}

    def download_bytes(self, asset: Asset) -> int | None:
        """Of the files of a model or data set that are to be downloaded; None: not known."""
        listed = self.at_hub.get(asset.name)
        if listed is None:
            return None
        wanted = {name for need in asset.needs for name in hub_files.wanted(need, listed.files, listed.card)}
        return sum(listed.files[name] for name in wanted)

    def stage(self, *names: str) -> Iterator[Command]:
        return (command for command in self.commands if command.stage in names)


def runs_llm(command: Command) -> bool:
    """Whether it loads a language model to write with."""
    return command.stage in ("datagen", "main") and command.args.inference_api in ("vllm", "hf")


# Of a configuration of accelerate launch, and of one of DeepSpeed.
_DeepSpeed = fields(zero_stage=int | None, deepspeed_config_file=str | None)
_Accelerate = fields(num_processes=int | None, mixed_precision=str | None, deepspeed_config=_DeepSpeed | None)
_DeepSpeedFile = fields(zero_optimization=fields(stage=int | None) | None)


@dataclass(frozen=True)
class Launch:
    """How many processes train, with DeepSpeed's ZeRO of this stage, 0 for none; `is_half`: products are computed in 16 bits."""

    processes: int = 1
    zero: int = 0
    is_half: bool = False
    nodes: int = 1


def launch(command: Command, gpus: int = 1, nodes: int = 1) -> Launch:
    """By the command's launcher, --deepspeed and the number of GPUs of all nodes. Raises UsageError for files that cannot be read."""
    words = list(command.launcher)
    config: _Accelerate = {}
    if path := values_of_flag(words, "--config_file"):
        try:
            config = schemas.decode_yaml(Path(path[0]).read_text(encoding="utf-8"), _Accelerate)
        except (OSError, ValueError) as error:
            raise UsageError(f"{path[0]} is no configuration of accelerate ({error}); see configs/") from None
    flags = {"--num_processes": 1, "--nproc_per_node": nodes, "--nproc-per-node": nodes}  # of all nodes, or of one
    counts = ((times, values_of_flag(words, flag)[:1]) for flag, times in flags.items())
    given = next((times * int(count) for times, of_flag in counts for count in of_flag if count.isdecimal()), None)
    default = gpus if "accelerate" in (Path(word).name for word in words) else 1
    processes = given or config.get("num_processes") or default
    deepspeed = config.get("deepspeed_config") or {}
    zero = deepspeed.get("zero_stage") or 0
    if file := command.args.deepspeed or deepspeed.get("deepspeed_config_file"):
        zero = (read_json(Path(file), _DeepSpeedFile).get("zero_optimization") or {}).get("stage") or 0
    precision = values_of_flag(words, "--mixed_precision")[:1] or [config.get("mixed_precision")]
    is_half = command.args.bf16 or command.args.fp16 or precision[0] in ("bf16", "fp16")
    return Launch(processes, zero if zero in (1, 2, 3) else 0, is_half, nodes)
