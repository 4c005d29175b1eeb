"""Event files that TensorBoard reads, written without it: the figures of log.jsonl by epoch.

A file is a sequence of records (TFRecord): the length as uint64, a masked CRC-32C of these eight bytes, the content, a
masked CRC-32C of the content. A content is a protocol buffer `Event`: 1 wall_time double, 2 step varint, 3 file_version
text, 5 Summary {1 Value {1 tag text, 2 simple_value float}}, 7 SessionLog {1 status varint, where 1 is START}. A START
at a step tells TensorBoard to forget what an earlier file says of later steps, which a resumed run repeats.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from pathlib import Path

from training.config import TrainConfig
from training.errors import TrainingError
from training.run.assembly import Run
from training.run.callbacks import Callback, Report
from training.run.resume import Progress

VERSION = b"brain.Event:2"
_TABLE = []
for _byte in range(256):
    for _ in range(8):
        _byte = _byte >> 1 ^ (0x82F63B78 if _byte & 1 else 0)
    _TABLE.append(_byte)


class TensorBoard(Callback):
    """events.out.tfevents.* in the run's folder, one for each process that trains it."""

    def __init__(self) -> None:
        self.file = Path()

    def on_start(self, run: Run, progress: Progress) -> None:
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}"
        self.file = run.config.run_dir / name
        if run.process.is_main:
            self._write(_field(3, VERSION))
            self._write(_step(progress.epoch + 1) + _field(7, _varint(1 << 3) + _varint(1)))

    def on_epoch_end(self, report: Report) -> None:
        if report.run.process.is_main:
            epoch = int(report.line["epoch"])
            values = b"".join(
                _field(1, _field(1, name.encode()) + struct.pack("<Bf", 2 << 3 | 5, value))
                for name, value in report.line.items()
                if name != "epoch"
            )
            self._write(_step(epoch) + _field(5, values))

    def _write(self, event: bytes) -> None:
        content = struct.pack("<Bd", 1 << 3 | 1, time.time()) + event
        length = struct.pack("<Q", len(content))
        try:
            with self.file.open("ab") as file:
                file.write(length + _masked_crc(length) + content + _masked_crc(content))
        except OSError as error:
            raise TrainingError(f"{self.file} cannot be written: {error.strerror}") from error


def tensorboard(config: TrainConfig) -> Callback:
    return TensorBoard()


def _step(step: int) -> bytes:
    return _varint(2 << 3) + _varint(step)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    encoded = b""
    while number > 127:
        encoded += bytes([number & 127 | 128])
        number >>= 7
    return encoded + bytes([number])


def _masked_crc(content: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in content:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 255]
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
