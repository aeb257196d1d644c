"""Checkpoints on disk, and ways to damage them."""

import shutil

import jax.numpy as jnp

from titans_eqx.checkpoint.checkpoints import Checkpoints


def items(value=0.0):
    return {"model": {"weights": jnp.full((64,), value * 1.0)}}


TEMPLATE = items()


def save_steps(folder, *steps):
    with Checkpoints(folder) as checkpoints:
        for step in steps:
            checkpoints.save(step, items(step), {"at": step})


def save_and_wait(checkpoints, step):
    checkpoints.save(step, TEMPLATE, {})
    checkpoints.wait()


def data_file(step_folder):
    files = [path for path in step_folder.rglob("d/*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def flip_bit(step_folder):
    path = data_file(step_folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path.name


def truncate(step_folder):
    path = data_file(step_folder)
    path.write_bytes(path.read_bytes()[:-1])
    return path.name


def remove_file(step_folder):
    path = data_file(step_folder)
    path.unlink()
    return path.name


def empty_folder(step_folder):
    shutil.rmtree(step_folder)
    step_folder.mkdir()
    return "manifest.json is missing"


def remove_manifest(step_folder):
    (step_folder / "manifest.json").unlink()
    return "manifest.json is missing"


def remove_metadata(step_folder):
    shutil.rmtree(step_folder / "metadata")
    return "metadata/"
