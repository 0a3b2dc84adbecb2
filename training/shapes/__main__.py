"""`python -m training.shapes train|evaluate|sheet`: train the project's text-to-image model, measure it, show it."""

import argparse
import os
import sys
import time
from pathlib import Path

from training.shapes.networks import GUIDANCE, STEPS, WEIGHTS


def main(arguments: list[str] | None = None) -> None:
    """Run the command that the arguments name; None means those of the process."""
    parser = argparse.ArgumentParser(prog="python -m training.shapes", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train all parts; an interrupted run is resumed")
    train.add_argument("--work", type=Path, default=Path(".tritonic/shapes"), help="folder for the state of the stages")
    train.add_argument("--weights", type=Path, default=WEIGHTS, help="folder for the trained pipeline")
    train.add_argument("--processes", type=int, default=min(4, os.cpu_count() or 1), help="1, 2 or 4")
    for stage in ("vae", "text", "unet"):
        train.add_argument(f"--{stage}-steps", type=int, help=f"steps of the stage {stage}, instead of the default")
    evaluate = commands.add_parser(
        "evaluate", help="measure how well images follow prompts that were held out of the training"
    )
    sheet = commands.add_parser("sheet", help="write a page of images of held-out prompts and of edits")
    sheet.add_argument("--out", type=Path, default=Path("docs/pictures/shapes.png"))
    for command, count in ((evaluate, 256), (sheet, 40)):
        command.add_argument("--weights", type=Path, default=WEIGHTS)
        command.add_argument("--count", type=int, default=count, help="number of images")
        command.add_argument("--steps", type=int, default=STEPS)
        command.add_argument("--guidance", type=float, default=GUIDANCE)
    evaluate.add_argument("--edits", type=int, default=32, help="number of images of each kind of edit")
    options = parser.parse_args(arguments)
    {"train": _train, "evaluate": _evaluate, "sheet": _sheet}[options.command](options)


def _train(options: argparse.Namespace) -> None:
    from training.common.process_group import run_in_processes
    from training.common.training_loop import TimestampedLog
    from training.shapes.train import TrainingConfig, train, with_steps

    config = with_steps(TrainingConfig(), options.vae_steps, options.text_steps, options.unet_steps)
    options.work.mkdir(parents=True, exist_ok=True)
    meeting = options.work.resolve() / "meeting"
    run_in_processes(
        options.processes, meeting, train, options.work, options.weights, config, TimestampedLog(time.time())
    )


def _evaluate(options: argparse.Namespace) -> None:
    from training.shapes.evaluation import evaluate, image_to_image, inpaint
    from training.shapes.networks import load_pipeline

    pipeline = load_pipeline(options.weights)
    scores = evaluate(pipeline, options.count, options.steps, options.guidance)
    _print(scores.table())
    _print(f"{scores.seconds:.3f} s an image, {options.steps} steps, guidance {options.guidance}")
    if options.edits:
        sampling = (options.steps, options.guidance)
        for name, edits in (
            ("half of a pair repainted under a mask", inpaint(pipeline, options.edits, *sampling)),
            ("another colour, strength 0.8", image_to_image(pipeline, options.edits, 0.8, *sampling)),
        ):
            _print(f"{name}: {sum(edit.is_correct for edit in edits)} of {len(edits)} right")


def _sheet(options: argparse.Namespace) -> None:
    from training.shapes.contact_sheet import write_contact_sheet
    from training.shapes.evaluation import generate_images, held_out_scenes, image_to_image, inpaint
    from training.shapes.judge import judge
    from training.shapes.networks import load_pipeline
    from training.shapes.scenes import scene_prompt

    pipeline = load_pipeline(options.weights)
    scenes = held_out_scenes(options.count)
    captions = [scene_prompt(scene) for scene in scenes]
    images = generate_images(pipeline, captions, options.steps, options.guidance)
    marks = [judge(image, scene)["all"] for image, scene in zip(images, scenes, strict=True)]
    edits = [
        *(("masked half: ", edit) for edit in inpaint(pipeline, 4, options.steps, options.guidance)),
        *(("strength 0.8: ", edit) for edit in image_to_image(pipeline, 4, 0.8, options.steps, options.guidance)),
    ]
    for name, edit in edits:
        images += [edit.before, edit.after]
        captions += ["before", name + edit.prompt]
        marks += [True, edit.is_correct]
    write_contact_sheet(images, captions, marks, 8, options.out)
    _print(f"{options.out}: {sum(marks[: len(scenes)])} of {len(scenes)} drawn right")


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
