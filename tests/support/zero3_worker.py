"""One of two processes that train a small model with DeepSpeed on the CPU; tests/test_zero3.py starts them.

    RANK=0 WORLD_SIZE=2 ... python tests/support/zero3_worker.py JOB.json

Writes report_{rank}.json beside the job: losses, and for each parameter what of it lies in this process. Rank 0 also
has the engine save the whole weights.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace


def main() -> None:
    path = Path(sys.argv[1])
    job = json.loads(path.read_text())
    import deepspeed
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.integrations.deepspeed import HfTrainerDeepSpeedConfig

    torch.set_num_threads(1)
    deepspeed.init_distributed("gloo")
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    batches = torch.tensor(job["batches"])
    rows = batches.shape[1] // world

    settings = json.loads(Path(job["config"]).read_text())
    settings["zero_optimization"]["stage"] = job["stage"]
    settings["zero_force_ds_cpu_optimizer"] = False  # torch's AdamW, as on GPUs; DeepSpeed's would have to be compiled
    settings["zero_allow_untested_optimizer"] = True
    filled = HfTrainerDeepSpeedConfig(settings)  # alive while the weights are loaded: ZeRO-3 shares them out at once
    arguments = SimpleNamespace(
        **{"world_size": world, "per_device_train_batch_size": rows, "gradient_accumulation_steps": 1},
        **{"max_grad_norm": job["max_grad_norm"], "learning_rate": job["learning_rate"], "weight_decay": 0.01},
        **{"adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8, "save_on_each_node": False},
        **{"fp16": False, "bf16": False, "fp16_full_eval": False, "bf16_full_eval": False},
        get_warmup_steps=lambda steps: 0,
    )
    filled.trainer_config_process(arguments)
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    filled.trainer_config_finalize(arguments, model, len(batches))
    optimizer = torch.optim.AdamW(model.parameters(), lr=job["learning_rate"], weight_decay=0.01)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=filled.config)

    losses = []
    for batch in batches:
        own = batch[rank * rows : (rank + 1) * rows]
        loss = engine(input_ids=own, labels=own).loss
        engine.backward(loss)
        engine.step()
        mean = loss.detach().clone()
        torch.distributed.all_reduce(mean)
        losses.append(float(mean) / world)

    held = {}
    for name, parameter in engine.module.named_parameters():
        shard = getattr(parameter, "ds_tensor", None)
        held[name] = {
            "whole": getattr(parameter, "ds_numel", parameter.numel()),
            "resident": parameter.numel(),
            "shard": None if shard is None else shard.numel(),
            "kept": getattr(parameter, "ds_persist", False),
        }
    report = {"losses": losses, "held": held, "config": filled.config}
    path.with_name(f"report_{rank}.json").write_text(json.dumps(report, default=str))
    engine.save_16bit_model(str(path.parent), "weights.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
