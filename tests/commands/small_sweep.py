"""Values with which a run of a sweep takes a second."""

SMALL = {
    "model.d_model": 8,
    "model.n_layers": 1,
    "model.memory.n_heads": 2,
    "model.memory.expansion": 1,
    "data.seq_len": 16,
    "data.lengths": "[16]",
    "data.task.n_pairs": 2,
    "train.steps": 2,
    "train.batch_size": 4,
    "train.eval_every": 2,
    "train.eval_examples": 4,
    "train.checkpoint_every": 2,
    "data.task.eval_examples": 8,
    "optimizer.warmup_steps": 1,
}
