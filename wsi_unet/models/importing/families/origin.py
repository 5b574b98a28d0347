"""Naming the program that wrote a checkpoint whose networks aren't known here."""

from __future__ import annotations

from typing import Any


def describe_origin(content: Any) -> str:
    """Return which program wrote a checkpoint, and its network; "" if that isn't known.

    Args:
        content: what the checkpoint holds, as `CheckpointFile.content`.
    """
    if not isinstance(content, dict) or "network_weights" not in content:
        return ""
    arguments = content.get("init_args")
    if not isinstance(arguments, dict):
        return ""
    configuration = arguments.get("configuration")
    network = _lookup(
        arguments.get("plans"), "configurations", configuration, "architecture"
    ) or _lookup(arguments.get("plans"), "configurations", configuration)
    names = [
        content.get("trainer_name"),
        configuration,
        _lookup(network, "network_class_name") or _lookup(network, "UNet_class_name"),
    ]
    known = ", ".join(name.rpartition(".")[2][:60] for name in names if isinstance(name, str))
    return f"nnU-Net v2 ({known})" if known else "nnU-Net v2"


def _lookup(value: Any, *keys: Any) -> Any:
    """Return what lies below keys of nested dictionaries; None if nothing does."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) and isinstance(key, str) else None
    return value
