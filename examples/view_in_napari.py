"""Open results in napari with their labels switched on (napari-ome-zarr loads them hidden).

pip install 'napari[pyqt6]' napari-ome-zarr
python examples/view_in_napari.py slide.ome.zarr
"""

from __future__ import annotations

import sys

import napari


def main() -> None:
    """Open the results named on the command line and show every layer."""
    if len(sys.argv) < 2:
        sys.exit("usage: view_in_napari.py RESULT.ome.zarr ...")
    viewer = napari.Viewer()
    for result in sys.argv[1:]:
        for layer in viewer.open(result, plugin="napari-ome-zarr"):
            layer.visible = True
    napari.run()


if __name__ == "__main__":
    main()
