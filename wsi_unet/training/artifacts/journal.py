"""Per-iteration metrics, as a table (CSV) and, if wanted, for TensorBoard.

A row is written as soon as its iteration is over. Rows after the last saved state are cut off when
the training is resumed, since those iterations are done again.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from wsi_unet.errors import OptionError, OutputError
from wsi_unet.logs import warn

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

NO_TENSORBOARD = "`tensorboard` needs TensorBoard: pip install 'wsi-unet[train]'"


class Journal:
    """A table to which rows are added; see `writing_journal`.

    Args:
        file: table, opened for writing at its end.
        columns: names of the columns.
        tensorboard: writer for TensorBoard; None: not wanted.
    """

    def __init__(
        self, file: IO[bytes], columns: Sequence[str], tensorboard: SummaryWriter | None
    ) -> None:
        self._file = file
        self._columns = tuple(columns)
        self._tensorboard = tensorboard
        if not file.tell():
            self._write(self._columns)

    @property
    def position(self) -> int:
        """Length of the table so far, bytes."""
        return self._file.tell()

    def add(self, iteration: int, values: Mapping[str, float]) -> None:
        """Add a row; columns without a value, or with NaN, are left empty.

        Raises:
            OutputError: if it can't be written.
        """
        known = {name: value for name, value in values.items() if not math.isnan(value)}
        self._write(
            [
                str(iteration),
                *(_text(known.get(name)) for name in self._columns if name != "iteration"),
            ]
        )
        if self._tensorboard is not None:
            for name, value in known.items():
                self._tensorboard.add_scalar(name, value, iteration)

    def sync(self) -> None:
        """Flush the table to the disk, before anything is written that relies on it.

        Raises:
            OutputError: if it can't be written.
        """
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _unwritable(self._file.name, error) from error

    def _write(self, cells: Sequence[str]) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow(cells)
        try:
            self._file.write(line.getvalue().encode())
            self._file.flush()
        except OSError as error:
            raise _unwritable(self._file.name, error) from error


def _unwritable(path: str, error: OSError) -> OutputError:
    return OutputError(f"can't write {path}: {error.strerror or error}")


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


@contextmanager
def writing_journal(
    path: Path, columns: Sequence[str], position: int, tensorboard: Path | None, iteration: int
) -> Iterator[Journal]:
    """Open the journal for rows that are added inside, after its first `position` bytes.

    Args:
        path: path of the table.
        columns: names of the columns; the first is "iteration".
        position: bytes of an existing table to keep; 0 starts a new table.
        tensorboard: folder for TensorBoard; None: not wanted.
        iteration: last iteration to keep in TensorBoard's log.

    Raises:
        OptionError: if TensorBoard is wanted but not installed.
        OutputError: if the table can't be written.
    """
    with ExitStack() as stack:
        writer = None
        if tensorboard is not None:
            writer = open_tensorboard(tensorboard, iteration)
            stack.callback(writer.close)
        try:
            file = stack.enter_context(path.open("r+b" if path.exists() else "w+b"))
            if file.seek(0, io.SEEK_END) < position:
                warn(f"{path} is shorter than it was; a new table is started")
                position = 0
            file.truncate(position)
            file.seek(0, io.SEEK_END)
        except OSError as error:
            raise _unwritable(str(path), error) from error
        yield Journal(file, columns, writer)


def check_tensorboard() -> None:
    """Check that TensorBoard is installed.

    Raises:
        OptionError: if it isn't.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise OptionError(NO_TENSORBOARD, option="tensorboard") from error


def open_tensorboard(folder: Path, iteration: int) -> SummaryWriter:
    """Open a log for TensorBoard, and drop its entries after `iteration`.

    Raises:
        OptionError: if TensorBoard isn't installed.
    """
    check_tensorboard()
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=iteration + 1)


def read_journal(path: Path) -> dict[str, list[float]]:
    """Return the journal's columns by name; empty cells are NaN."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = rows[0].keys() if rows else ()
    return {name: [float(row[name] or "nan") for row in rows] for name in names}
