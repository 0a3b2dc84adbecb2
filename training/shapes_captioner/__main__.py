"""`python -m training.shapes_captioner train|evaluate|sheet|cut`: train the captioner, measure it, show it."""

import argparse
import os
import sys
import time
from pathlib import Path

DEFAULT_WORK = Path(".tritonic/shapes-captioner")


def main(arguments: list[str] | None = None) -> None:
    """Run the command that the arguments name; None means those of the process."""
    from training.shapes_captioner.networks import WEIGHTS

    parser = argparse.ArgumentParser(prog="python -m training.shapes_captioner", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train", help="train both stages; an interrupted run is resumed")
    train.add_argument("--work", type=Path, default=DEFAULT_WORK, help="folder for the state of the stages")
    train.add_argument("--weights", type=Path, default=WEIGHTS, help="folder for the trained model")
    train.add_argument("--processes", type=int, default=min(4, os.cpu_count() or 1), help="1, 2 or 4")
    for stage in ("vision", "captioner"):
        train.add_argument(f"--{stage}-steps", type=int, help=f"steps of the stage {stage}, instead of the default")
    evaluate = commands.add_parser("evaluate", help="measure captions of pictures that were held out of the training")
    evaluate.add_argument("--temperature", type=float, default=1.0, help="of the sampled captions")
    evaluate.add_argument("--free", type=int, default=64, help="number of pictures of any shapes at any place")
    evaluate.add_argument("--generated", type=int, default=64, help="number of pictures that the model shapes draws")
    sheet = commands.add_parser("sheet", help="write a page of held-out pictures with their captions")
    sheet.add_argument("--out", type=Path, default=Path("docs/pictures/shapes-captioner.png"))
    for command, count in ((evaluate, 256), (sheet, 40)):
        command.add_argument("--weights", type=Path, default=WEIGHTS)
        command.add_argument("--count", type=int, default=count, help="number of pictures")
    cut = commands.add_parser("cut", help="choose the merges of the tokenizer anew")
    cut.add_argument("tokenizer", type=Path, help="tokenizer.json of SmolLM2")
    options = parser.parse_args(arguments)
    {"train": _train, "evaluate": _evaluate, "sheet": _sheet, "cut": _cut}[options.command](options)


def _train(options: argparse.Namespace) -> None:
    from training.common.process_group import run_in_processes
    from training.common.training_loop import TimestampedLog
    from training.shapes_captioner.train import TrainingConfig, train, with_steps

    config = with_steps(TrainingConfig(), options.vision_steps, options.captioner_steps)
    options.work.mkdir(parents=True, exist_ok=True)
    meeting = options.work.resolve() / "meeting"
    run_in_processes(
        options.processes, meeting, train, options.work, options.weights, config, TimestampedLog(time.time())
    )


def _evaluate(options: argparse.Namespace) -> None:
    from training.shapes_captioner.evaluation import evaluate, generated_pictures, held_out_pictures
    from training.shapes_captioner.networks import load_captioner

    model, tokenizer = load_captioner(options.weights)
    tests = held_out_pictures(options.count)
    scores = evaluate(model, tokenizer, tests)
    _print(scores.table())
    _print(f"{scores.seconds:.3f} s a picture")
    others = {f"sampled at temperature {options.temperature}": (tests, options.temperature)}
    if options.free:
        others["shapes of any size at any place"] = (held_out_pictures(options.free, ("free",)), 0.0)
    if options.generated:
        others["drawn by the model shapes"] = (generated_pictures(options.generated), 0.0)
    for name, (pictures, temperature) in others.items():
        rate = evaluate(model, tokenizer, pictures, temperature).pass_rates["all"]["all"]
        _print(f"{name}: {rate:.3f} of {len(pictures)} right in every claim")


def _sheet(options: argparse.Namespace) -> None:
    from training.shapes.contact_sheet import write_contact_sheet
    from training.shapes.rendering import IMAGE_SIZE
    from training.shapes_captioner.evaluation import answer, held_out_pictures, shown
    from training.shapes_captioner.judge import judge
    from training.shapes_captioner.networks import load_captioner

    model, tokenizer = load_captioner(options.weights)
    tests = held_out_pictures(options.count, ("scene", "scene", "first frame", "free"))
    captions = answer(model, tokenizer, [test.image for test in tests])
    marks = [judge(caption, test.picture)["all"] for caption, test in zip(captions, tests, strict=True)]
    write_contact_sheet([shown(test.image, IMAGE_SIZE) for test in tests], captions, marks, 8, options.out)
    _print(f"{options.out}: {sum(marks)} of {len(tests)} described right")


def _cut(options: argparse.Namespace) -> None:
    from tokenizers import Tokenizer

    from training.shapes_captioner.conversations import sentences
    from training.shapes_captioner.tokenizer import MERGES, cut_merges, write_merges

    merges = cut_merges(Tokenizer.from_file(str(options.tokenizer)), sentences())
    write_merges(merges)
    _print(f"{MERGES}: {len(merges)} merges")


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
