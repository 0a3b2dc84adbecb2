"""Writes `data.json` of all profiles."""

from benchmarks.profiles import HERE, PROFILES, render

for name in PROFILES:
    (HERE / name / "data.json").write_text(render(name), encoding="utf-8")
