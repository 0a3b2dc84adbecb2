"""`python -m training.moving_shapes train|evaluate|sheet`: train the text-to-video model, measure it, show it."""

import argparse
import os
import sys
import time
from pathlib import Path

from training.moving_shapes.networks import GUIDANCE, STEPS, WEIGHTS


def main(arguments: list[str] | None = None) -> None:
    """Run the command that the arguments name; None means those of the process."""
    parser = argparse.ArgumentParser(prog="python -m training.moving_shapes", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train all parts; an interrupted run is resumed")
    train.add_argument(
        "--work", type=Path, default=Path(".tritonic/moving-shapes"), help="folder for the state of the stages"
    )
    train.add_argument("--weights", type=Path, default=WEIGHTS, help="folder for the trained pipeline")
    train.add_argument("--processes", type=int, default=min(4, os.cpu_count() or 1), help="1, 2 or 4")
    for stage in ("vae", "text", "transformer"):
        train.add_argument(f"--{stage}-steps", type=int, help=f"steps of the stage {stage}, instead of the default")
    evaluate = commands.add_parser(
        "evaluate", help="measure how well clips follow prompts that were held out of the training"
    )
    sheet = commands.add_parser("sheet", help="write a page of clips of held-out prompts and of edits")
    sheet.add_argument("--out", type=Path, default=Path("docs/pictures/moving-shapes.png"))
    for command, count in ((evaluate, 256), (sheet, 36)):
        command.add_argument("--weights", type=Path, default=WEIGHTS)
        command.add_argument("--count", type=int, default=count, help="number of clips")
        command.add_argument("--steps", type=int, default=STEPS)
        command.add_argument("--guidance", type=float, default=GUIDANCE)
    evaluate.add_argument("--edits", type=int, default=64, help="number of clips of each kind of edit")
    options = parser.parse_args(arguments)
    {"train": _train, "evaluate": _evaluate, "sheet": _sheet}[options.command](options)


def _train(options: argparse.Namespace) -> None:
    from training.common.process_group import run_in_processes
    from training.common.training_loop import TimestampedLog
    from training.moving_shapes.train import TrainingConfig, train, with_steps

    config = with_steps(TrainingConfig(), options.vae_steps, options.text_steps, options.transformer_steps)
    options.work.mkdir(parents=True, exist_ok=True)
    meeting = options.work.resolve() / "meeting"
    run_in_processes(
        options.processes, meeting, train, options.work, options.weights, config, TimestampedLog(time.time())
    )


def _evaluate(options: argparse.Namespace) -> None:
    from training.moving_shapes.evaluation import edit_rates, evaluate, image_to_video, remix
    from training.moving_shapes.networks import load_pipeline

    pipeline = load_pipeline(options.weights)
    scores = evaluate(pipeline, options.count, options.steps, options.guidance)
    _print(scores.table())
    _print(f"{scores.seconds:.3f} s a clip, {options.steps} steps, guidance {options.guidance}")
    if options.edits:
        sampling = {"steps": options.steps, "guidance": options.guidance}
        for name, edits in (
            ("image to video", image_to_video(pipeline, options.edits, **sampling)),
            ("another colour, strength 0.8", remix(pipeline, options.edits, **sampling)),
        ):
            rates = ", ".join(f"{criterion} {rate:.3f}" for criterion, rate in edit_rates(edits).items())
            _print(f"{name}, {len(edits)} clips: {rates}")


def _sheet(options: argparse.Namespace) -> None:
    import numpy as np

    from training.moving_shapes.contact_sheet import write_contact_sheet
    from training.moving_shapes.evaluation import (
        generate_clips,
        held_out_prompts,
        held_out_scenes,
        image_to_video,
        remix,
    )
    from training.moving_shapes.judge import judge
    from training.moving_shapes.networks import load_pipeline
    from training.moving_shapes.trajectories import NUM_FRAMES

    pipeline = load_pipeline(options.weights)
    sampling = {"steps": options.steps, "guidance": options.guidance}
    scenes = held_out_scenes(options.count)
    captions = held_out_prompts(scenes)
    clips = generate_clips(pipeline, captions, **sampling)
    marks = [judge(clip, scene)["all"] for clip, scene in zip(clips, scenes, strict=True)]
    right = sum(marks)
    for name, edits in (
        ("first frame: ", image_to_video(pipeline, 3, **sampling)),
        ("remix: ", remix(pipeline, 3, **sampling)),
    ):
        for edit in edits:
            before = edit.before if edit.before.ndim == 4 else np.repeat(edit.before[None], NUM_FRAMES, 0)
            clips += [before, edit.after]
            captions += ["before", name + edit.prompt]
            marks += [True, all(edit.verdict.values())]
    write_contact_sheet(clips, captions, marks, 2, options.out)
    _print(f"{options.out}: {right} of {len(scenes)} drawn right")


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
