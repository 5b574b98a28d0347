"""`wsi-unet doctor`: show versions and devices."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import click

from wsi_unet._version import __version__
from wsi_unet_cli.common.options import json_option, verbose_option
from wsi_unet_cli.common.output import print_facts, print_json, size

if TYPE_CHECKING:
    from wsi_unet.models.inference.devices import DeviceInfo
    from wsi_unet.models.number_types import Precision

PACKAGES = (
    "torch",
    "dask",
    "distributed",
    "zarr",
    "xarray",
    "tiffslide",
    "tifffile",
    "imagecodecs",
    "numpy",
    "openslide-python",
    "wsidicom",
)

EPILOG = """\
\b
Examples:
  wsi-unet doctor
  wsi-unet doctor --json
"""


@dataclass(frozen=True)
class MeasuredDevice:
    """A device and how fast it multiplies matrices.

    Attributes:
        device: the device.
        flops: FLOP/s of a large matrix product, by number type.
    """

    device: DeviceInfo
    flops: dict[Precision, float]


@click.command(epilog=EPILOG, short_help="Show versions, devices and what would be used.")
@json_option
@verbose_option
def doctor(as_json: bool) -> None:
    """Show versions and devices, measure their speed, and say what a run would use.

    Add its output to any report of a problem.
    """
    from wsi_unet.models.inference.devices import describe_devices

    devices = [_measure(device) for device in describe_devices()]
    versions = package_versions()
    if as_json:
        print_json(_document(devices, versions))
    else:
        _show(devices, versions)


def package_versions() -> dict[str, str | None]:
    """Return the version of each package that matters here; None if it isn't installed."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return versions


def _measure(device: DeviceInfo) -> MeasuredDevice:
    from wsi_unet.models.inference.devices import measure_matmul_rate

    types: tuple[Precision, ...] = ("float32", "bfloat16")
    return MeasuredDevice(device, {name: measure_matmul_rate(device.name, name) for name in types})


def _document(devices: list[MeasuredDevice], versions: dict[str, str | None]) -> dict[str, Any]:
    best = devices[0].device
    return {
        "wsi_unet": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "devices": [{**asdict(item.device), "matmul_flops": item.flops} for item in devices],
        "would_use": {"device": best.name, "precision": best.precision},
    }


def _show(devices: list[MeasuredDevice], versions: dict[str, str | None]) -> None:
    print_facts(
        f"wsi-unet {__version__}",
        [
            ("python", platform.python_version()),
            ("platform", platform.platform()),
            *((name, number or "not installed") for name, number in versions.items()),
        ],
    )
    for measured in devices:
        device = measured.device
        rates = (f"{flops / 1e9:,.0f} GFLOP/s in {name}" for name, flops in measured.flops.items())
        print_facts(
            device.name,
            [
                ("is", device.description),
                ("memory", "" if device.memory is None else size(device.memory)),
                ("16-bit matrix units", "yes" if device.matrix_units else "no"),
                ("matrix products", ", ".join(rates)),
            ],
        )
    best = devices[0].device
    print_facts("a run would use", [(best.name, f"in {best.precision}")])
