"""Writing Dask's report about a run: which worker did what when, as one HTML page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distributed import Client, performance_report
from distributed.versions import get_versions

from wsi_unet import logs
from wsi_unet.errors import OptionError
from wsi_unet.regular_files import check_regular


@contextmanager
def write_performance_report(client: Client, path: str) -> Iterator[None]:
    """Write a report about what happens inside, once that has ended or failed.

    Args:
        client: the cluster.
        path: path of the HTML page.

    Raises:
        OptionError: the page can't be written, or the scheduler can't draw it.
    """
    if client.run_on_scheduler(get_versions, ["bokeh"])["packages"]["bokeh"] is None:
        raise OptionError(
            "a performance report needs bokeh where the scheduler runs; install it there with "
            "`pip install bokeh`"
        )
    try:
        Path(path).touch()
        check_regular(path)
    except OSError as error:
        raise OptionError(
            f"the performance report {path} can't be written: {error.strerror}"
        ) from error
    report = performance_report(filename=path)
    with client.as_current():
        report.__enter__()
        try:
            yield
        finally:
            _finish(client, report, path)


def _finish(client: Client, report: performance_report, path: str) -> None:
    """Write the page; warn if that fails, since the run itself hasn't."""
    if client.status != "running":
        logs.warn(f"there is no performance report in {path}: the scheduler is gone")
        return
    try:
        report.__exit__(None, None, None)
    except OSError as error:
        logs.warn(f"the performance report {path} couldn't be written: {error}")
