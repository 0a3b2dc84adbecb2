"""Write the requests of all profiles."""

from benchmarks.profiles import HERE, WRITTEN, text

for name in WRITTEN:
    (HERE / name / "data.json").write_text(text(name), encoding="utf-8")
