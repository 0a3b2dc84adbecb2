"""The scheduler in `pipeline.json`."""

from pathlib import Path

import pytest
from diffusers import DDIMScheduler, DiffusionPipeline

from builders.diffusion import pipeline, pipeline_json
from tests.fakes.pipelines import make_pipeline


# diffusers warns that it overrides these options, which this test is about.
@pytest.mark.filterwarnings("ignore:The configuration file of this scheduler:FutureWarning")
def test_stable_diffusion_overrides_old_scheduler_options(tmp_path: Path) -> None:
    folder = make_pipeline(tmp_path / "old", "sd", scheduler=DDIMScheduler(steps_offset=0, clip_sample=True))
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text().replace('"clip_sample": false', '"clip_sample": true'))
    written = pipeline_json.describe(pipeline.read(folder), "old")["scheduler"]
    loaded = DiffusionPipeline.from_pretrained(folder).scheduler.config
    assert {key: written[key] for key in ("steps_offset", "clip_sample")} == {"steps_offset": 1, "clip_sample": False}
    assert all(loaded[key] == value for key, value in written.items() if key != "class")
