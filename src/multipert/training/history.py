"""What happened in training, epoch by epoch."""

from collections.abc import Mapping
from pathlib import Path

import pandas as pd


class History:
    """One row for each epoch: stage, epoch, step, seconds, then the losses.

    Columns ``train_*`` are means over the epoch's batches, ``validation_*`` over the validation cells.
    """

    def __init__(self, rows: list[dict[str, float | int | str]] | None = None) -> None:
        self.rows = rows or []

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, stage: str, epoch: int, step: int, seconds: float, losses: Mapping[str, float]) -> None:
        """Enter one epoch."""
        self.rows.append({"stage": stage, "epoch": epoch, "step": step, "seconds": round(seconds, 3), **losses})

    @classmethod
    def from_table(cls, table: pd.DataFrame) -> "History":
        """The history that :attr:`table` was made of."""
        rows = [{str(k): v for k, v in row.items() if pd.notna(v)} for row in table.to_dict("records")]
        return cls(rows)

    @property
    def steps(self) -> int:
        """Batches trained on, over all stages."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    @property
    def seconds(self) -> float:
        """Time spent in training up to the last row, over all starts."""
        return float(self.rows[-1]["seconds"]) if self.rows else 0.0

    @property
    def table(self) -> pd.DataFrame:
        """The rows as a table."""
        return pd.DataFrame(self.rows, columns=None if self.rows else ["stage", "epoch", "step", "seconds"])

    def write_tensorboard(self, folder: Path) -> None:
        """Write every column of losses as a TensorBoard curve under ``folder``.

        Raises
        ------
        ModuleNotFoundError
            If tensorboard is not installed (``pip install 'multipert[tensorboard]'``).
        """
        from torch.utils.tensorboard import SummaryWriter

        with SummaryWriter(str(folder)) as writer:
            for row in self.rows:
                for name, value in row.items():
                    if name.startswith(("train_", "validation_")):
                        writer.add_scalar(f"{row['stage']}/{name}", value, row["step"])
