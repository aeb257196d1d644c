"""Devices: the mesh, partition specs, and constants inside `shard_map`."""
