"""`python -m training.shapes train|evaluate|sheet`: make the project's text-to-image model, measure it, show it."""

import argparse
import os
import sys
import time
from pathlib import Path

from training.shapes.networks import GUIDANCE, STEPS, WEIGHTS


def main(arguments: list[str] | None = None) -> None:
    """Run the command that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m training.shapes", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train all parts; a run that was broken off goes on")
    train.add_argument("--work", type=Path, default=Path(".tritonic/shapes"), help="where the stages keep their state")
    train.add_argument("--weights", type=Path, default=WEIGHTS, help="where the pipeline is written")
    train.add_argument("--processes", type=int, default=min(4, os.cpu_count() or 1), help="1, 2 or 4")
    for stage in ("vae", "text", "unet"):
        train.add_argument(f"--{stage}-steps", type=int, help=f"other than the recipe's steps of the {stage}")
    evaluate = commands.add_parser("evaluate", help="measure adherence on prompts that were never trained on")
    sheet = commands.add_parser("sheet", help="draw held-out prompts and edits on one page")
    sheet.add_argument("--out", type=Path, default=Path("docs/pictures/shapes.png"))
    for command, count in ((evaluate, 256), (sheet, 40)):
        command.add_argument("--weights", type=Path, default=WEIGHTS)
        command.add_argument("--count", type=int, default=count, help="pictures")
        command.add_argument("--steps", type=int, default=STEPS)
        command.add_argument("--guidance", type=float, default=GUIDANCE)
    evaluate.add_argument("--edits", type=int, default=32, help="pictures of each kind of edit")
    asked = parser.parse_args(arguments)
    {"train": _train, "evaluate": _evaluate, "sheet": _sheet}[asked.command](asked)


def _train(asked: argparse.Namespace) -> None:
    from training.shapes.process_group import run_in_processes
    from training.shapes.train import TrainingConfig, train, with_steps
    from training.shapes.training_loop import TimestampedLog

    recipe = with_steps(TrainingConfig(), asked.vae_steps, asked.text_steps, asked.unet_steps)
    asked.work.mkdir(parents=True, exist_ok=True)
    meeting = asked.work.resolve() / "meeting"
    run_in_processes(asked.processes, meeting, train, asked.work, asked.weights, recipe, TimestampedLog(time.time()))


def _evaluate(asked: argparse.Namespace) -> None:
    from training.shapes.evaluation import evaluate, image_to_image, inpaint
    from training.shapes.networks import load_pipeline

    pipeline = load_pipeline(asked.weights)
    scores = evaluate(pipeline, asked.count, asked.steps, asked.guidance)
    _say(scores.table())
    _say(f"{scores.seconds_per_image:.3f} s a picture, {asked.steps} steps, guidance {asked.guidance}")
    if asked.edits:
        for name, edits in (
            ("half of a pair repainted under a mask", inpaint(pipeline, asked.edits, asked.steps, asked.guidance)),
            ("another colour, strength 0.8", image_to_image(pipeline, asked.edits, 0.8, asked.steps, asked.guidance)),
        ):
            _say(f"{name}: {sum(edit.is_correct for edit in edits)} of {len(edits)} right")


def _sheet(asked: argparse.Namespace) -> None:
    from training.shapes.contact_sheet import write_contact_sheet
    from training.shapes.evaluation import generate_images, held_out_scenes, image_to_image, inpaint
    from training.shapes.judge import judge
    from training.shapes.networks import load_pipeline
    from training.shapes.scenes import scene_prompt

    pipeline = load_pipeline(asked.weights)
    scenes = held_out_scenes(asked.count)
    captions = [scene_prompt(scene) for scene in scenes]
    pictures = generate_images(pipeline, captions, asked.steps, asked.guidance)
    marks = [judge(picture, scene)["all"] for picture, scene in zip(pictures, scenes, strict=True)]
    edits = [
        *(("masked half: ", edit) for edit in inpaint(pipeline, 4, asked.steps, asked.guidance)),
        *(("strength 0.8: ", edit) for edit in image_to_image(pipeline, 4, 0.8, asked.steps, asked.guidance)),
    ]
    for name, edit in edits:
        pictures += [edit.before, edit.after]
        captions += ["before", name + edit.prompt]
        marks += [True, edit.is_correct]
    write_contact_sheet(pictures, captions, marks, 8, asked.out)
    _say(f"{asked.out}: {sum(marks[: len(scenes)])} of {len(scenes)} drawn right")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
