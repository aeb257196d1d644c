"""Runs our cases on PyPI's titans-pytorch; started by `comparison`, by its path.

This file belongs to an interpreter that has torch and neither jax nor this package, so
all it imports of ours is `serving`, which needs the standard library only.
"""

import contextlib
import importlib.metadata
import io
import os
import sys
import time

import torch  # pyright: ignore[reportMissingImports]
from titans_pytorch import (  # pyright: ignore[reportMissingImports]
    MemoryAsContextTransformer,
    NeuralMemory,
)

from scripts.benchmark.serving import serve

SETTLE_SECONDS = 0.3  # after a run its threads spin on, beside whoever runs next


class NoAccelerator(Exception):
    """Ours runs on an accelerator that torch does not see."""


def start(message):
    """What `serve` needs for the case in a message."""
    if message["platform"] != "cpu":
        if not torch.cuda.is_available():
            raise NoAccelerator(
                f"torch of {sys.executable} sees no accelerator, ours does."
            )
        torch.set_default_device("cuda")
        torch.set_float32_matmul_precision("high")  # what jax does by default
    torch.manual_seed(0)
    torch.set_num_threads(n_cores())
    run, n_tokens, module = build(message["case"])

    def run_and_settle():
        seconds = run()
        time.sleep(SETTLE_SECONDS)
        return seconds

    run_and_settle()
    names = ("titans-pytorch", "torch")
    facts = {
        "tokens": n_tokens,
        "parameters": sum(p.numel() for p in module.parameters()),
        "software": ", ".join(f"{n} {importlib.metadata.version(n)}" for n in names),
    }
    return facts, {"run": run_and_settle}


def build(case):
    """What is run for a case, the tokens of a run, and the module."""
    kind = case["kind"]
    if kind in ("memory_forward", "memory_gradient"):
        return build_memory(case, has_gradient=kind == "memory_gradient")
    return build_train(case) if kind == "train" else build_decode(case)


def build_memory(case, *, has_gradient):
    """One layer whose gradients are refreshed at every chunk, as ours."""
    config, (batch, length) = case["config"], sizes(case)
    d_model, memory = config["model"]["d_model"], config["model"]["memory"]
    layer = NeuralMemory(
        dim=d_model,
        chunk_size=memory["chunk_len"],
        batch_size=memory["chunk_len"],
        **heads(d_model, memory),
        default_model_kwargs=network(memory),
    )
    x = torch.randn(batch, length, d_model, requires_grad=has_gradient)

    def forward():
        with torch.no_grad():
            layer(x)

    def gradient():
        layer.zero_grad()
        x.grad = None
        y, _ = layer(x)
        y.sum().backward()

    return timer(gradient if has_gradient else forward), batch * length, layer


def build_train(case):
    """A step of AdamW on a batch of random tokens."""
    batch, length = sizes(case)
    model = build_model(case)
    # Initial weights of the heads are views of one array; AdamW refuses to write them.
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    vocab_size = case["config"]["model"]["vocab_size"]
    tokens = torch.randint(0, vocab_size, (batch, length + 1))

    def step():
        optimizer.zero_grad()
        model(tokens, return_loss=True).backward()
        optimizer.step()

    return timer(step), batch * length, model


def build_decode(case):
    """Drawing tokens after a prompt; reading the prompt is subtracted."""
    _, length = sizes(case)
    n_drawn = case["n_drawn"]
    model = build_model(case).eval()
    vocab_size = case["config"]["model"]["vocab_size"]
    prompt = torch.randint(0, vocab_size, (1, length))

    @torch.no_grad()
    def sample(n_more):
        with contextlib.redirect_stderr(io.StringIO()):  # it shows its progress
            model.sample(prompt, length + n_more, use_cache=True)

    first, all_of_them = timer(lambda: sample(1)), timer(lambda: sample(1 + n_drawn))

    def run():
        prefix = first()
        return max(all_of_them() - prefix, 1e-9)

    return run, n_drawn, model


def build_model(case):
    """The byte language model with the memory as context, in the sizes of ours."""
    model = case["config"]["model"]
    memory, attention = model["memory"], model["attention"]
    return MemoryAsContextTransformer(
        num_tokens=model["vocab_size"],
        dim=model["d_model"],
        depth=model["n_layers"],
        segment_len=attention["segment_len"],
        num_persist_mem_tokens=attention["n_persistent"],
        num_longterm_mem_tokens=4,
        dim_head=model["d_model"] // attention["n_heads"],
        heads=attention["n_heads"],
        neural_memory_segment_len=memory["chunk_len"],
        neural_memory_batch_size=memory["chunk_len"],
        num_residual_streams=1,
        neural_memory_kwargs={
            **heads(model["d_model"], memory),
            "default_model_kwargs": network(memory),
        },
    )


def sizes(case):
    """Sequences and tokens in each."""
    config = case["config"]
    return config["train"]["batch_size"], config["data"]["seq_len"]


def heads(d_model, memory):
    """Heads of the memory and their width."""
    return {"heads": memory["n_heads"], "dim_head": d_model // memory["n_heads"]}


def network(memory):
    """The network that is the memory of a head."""
    return {"depth": memory["depth"], "expansion_factor": float(memory["expansion"])}


def timer(work):
    """A function that does the work and returns the seconds it took."""

    def run():
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return run


def n_cores():
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    serve(start, torch.cuda.max_memory_allocated, NoAccelerator)
