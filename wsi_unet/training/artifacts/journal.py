"""What every iteration came to, as a table (CSV) and, if wanted, for TensorBoard.

A row is written as soon as its iteration is over. What a stopped training wrote after its last
state is cut off when it goes on, since those iterations are done again.
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

NO_TENSORBOARD = "--tensorboard needs TensorBoard: pip install 'wsi-unet[train]'"


class Journal:
    """A table to which rows are added; see `writing_journal`.

    Args:
        file: opened for writing at the table's end.
        columns: their names.
        board: for TensorBoard, or None.
    """

    def __init__(
        self, file: IO[bytes], columns: Sequence[str], board: SummaryWriter | None
    ) -> None:
        self._file = file
        self._columns = tuple(columns)
        self._board = board
        if not file.tell():
            self._write(self._columns)

    @property
    def position(self) -> int:
        """Bytes written so far."""
        return self._file.tell()

    def add(self, iteration: int, values: Mapping[str, float]) -> None:
        """Add a row; columns without a value, or with NaN, stay empty.

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
        if self._board is not None:
            for name, value in known.items():
                self._board.add_scalar(name, value, iteration)

    def sync(self) -> None:
        """Have what was written on the disk before anything that relies on it.

        Raises:
            OutputError: if it can't be.
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
    path: Path, columns: Sequence[str], position: int, board: Path | None, iteration: int
) -> Iterator[Journal]:
    """Write the journal inside, after its first `position` bytes.

    Args:
        path: of the table.
        columns: their names; the first is "iteration".
        position: what is left of the table that is there, bytes; 0 begins a new one.
        board: folder for TensorBoard; None: not wanted.
        iteration: the last one that is left.

    Raises:
        OptionError: if TensorBoard is wanted but not installed.
        OutputError: if it can't be written.
    """
    with ExitStack() as stack:
        writer = None
        if board is not None:
            writer = open_board(board, iteration)
            stack.callback(writer.close)
        try:
            file = stack.enter_context(path.open("r+b" if path.exists() else "w+b"))
            if file.seek(0, io.SEEK_END) < position:
                warn(f"{path} is shorter than it was; its table begins anew")
                position = 0
            file.truncate(position)
            file.seek(0, io.SEEK_END)
        except OSError as error:
            raise _unwritable(str(path), error) from error
        yield Journal(file, columns, writer)


def check_board() -> None:
    """Refuse a log for TensorBoard where that isn't installed.

    Raises:
        OptionError: it isn't.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise OptionError(NO_TENSORBOARD) from error


def open_board(folder: Path, iteration: int) -> SummaryWriter:
    """Open a log for TensorBoard; what it says of iterations after `iteration` is forgotten.

    Raises:
        OptionError: if TensorBoard isn't installed.
    """
    check_board()
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=iteration + 1)


def read_journal(path: Path) -> dict[str, list[float]]:
    """Return the table's columns; NaN where a cell is empty."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = rows[0].keys() if rows else ()
    return {name: [float(row[name] or "nan") for row in rows] for name in names}
