"""The training run: epochs of steps, evaluation, log and checkpoints.

1. a run that is stopped or killed at any moment resumes from its last checkpoint and ends as if it had not stopped;
2. a loss that is not finite stops the run immediately, and the error names step, learning rate and loss scale; no
   checkpoint is overwritten;
3. every epoch writes a line to log.jsonl, a point to curves.png (soon, or when the run ends or is stopped), and
   `last.ckpt`; an evaluation writes `best.ckpt` when its result is the best so far;
4. if weights are averaged, the averages are evaluated and saved as the best;
5. only rank 0 writes, figures cover all ranks, and all ranks stop together when a loss is not finite or when one is
   asked to stop;
6. whatever else happens is a callback (training.run.callbacks).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from training.config import TrainConfig
from training.data.images import Images
from training.run.assembly import Run, shortened
from training.run.callbacks import Callback, Report, build_callbacks, why_end
from training.run.distributed import ranks
from training.run.distributed.device import SINGLE_PROCESS, Process
from training.run.epoch import finish_epoch, train_epoch
from training.run.record.journal import Journal, Line
from training.run.resume import Progress, save_run
from training.run.start import prepare_first_epoch, start
from training.run.stopping import StopRequest
from training.storage import modelarts
from training.storage.files import write_whole


def train(config: TrainConfig, stop: StopRequest | None = None, process: Process = SINGLE_PROCESS) -> Path:
    """Run the recipe to its end -> the best checkpoint. Raises TrainingError, and Stopped if `stop` is requested.

    If one rank of several fails it exits, and the launcher must end the others, which wait for it.
    """
    callbacks = build_callbacks(config)
    if config.train_url:
        modelarts.fetch_run(config.train_url, config.run_dir)
    run, progress, train_images, val_images = start(config, process, callbacks)
    journal = Journal(config.run_dir, progress.epoch) if process.is_main else None
    if run.skipped and process.is_main:
        listing = config.run_dir / "skipped.txt"
        write_whole(listing, "".join(f"{line}\n" for line in run.skipped).encode())
        print(f"skipped {len(run.skipped)} broken images, listed in {listing}")
    if progress == Progress():
        prepare_first_epoch(run, train_images)
    try:
        for callback in callbacks:
            callback.on_start(run, progress)
        ranks.broadcast(run.parameters.values(), process)
        progress = _epochs(run, progress, (train_images, val_images), callbacks, journal, stop or StopRequest())
    finally:
        for callback in callbacks:
            callback.on_end(run)
        if journal:
            journal.complete_curves()
    if progress.ended and process.is_main:
        print(f"ended after epoch {progress.epoch}: {progress.ended}")
    return config.run_dir / "best.ckpt"


def _epochs(
    run: Run,
    progress: Progress,
    splits: tuple[Images, Images],
    callbacks: Sequence[Callback],
    journal: Journal | None,
    stop: StopRequest,
) -> Progress:
    """Train from `progress` to the end, which is returned. Raises TrainingError, Stopped."""
    run = shortened(run, progress.epochs)
    with stop:
        while progress.epoch < run.config.epochs and not progress.ended:
            for callback in callbacks:
                callback.on_epoch_start(run, progress.epoch)
            if progress.step < run.steps:
                train_epoch(run, splits[0], progress, stop)
            line = finish_epoch(run, splits[1], progress, stop)
            if journal:
                _log(line, journal, run.config)
            progress = progress.next_epoch(run.updates_done, run.overflows)
            progress.ended = why_end(callbacks, Report(run, line, progress))
            progress.epochs = int(ranks.from_rank_0([progress.epochs], run.process)[0])
            run = shortened(run, progress.epochs)
            # Last of all: an epoch interrupted before this is finished once more after the resume.
            save_run(run, progress)
    return progress


def _log(line: Line, journal: Journal, config: TrainConfig) -> None:
    journal.add(line, config.arch)
    left = tqdm.format_interval(journal.seconds_left(config.epochs))
    print(f"{_summary(line)}, {left} left", flush=True)


def _summary(line: Line) -> str:
    evaluated = f", val top-1 {line['val_top1']:.2%}" if "val_top1" in line else ""
    evaluated += f", mean average precision {line['val_map']:.2%}" if "val_map" in line else ""
    return (
        f"epoch {line['epoch']}: loss {line['loss']:.4f}, train {line['train_top1']:.2%}{evaluated}, "
        f"{line['images_per_second']:.0f} images/s"
    )
