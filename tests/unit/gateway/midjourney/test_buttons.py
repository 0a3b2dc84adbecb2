"""The grammar of buttons."""

import pytest

from gateway.dialects.midjourney.buttons import Action, mint, parse

OPERATIONS = ("generate_image", "edit_image", "upscale_image", "generate_video")


def test_minted_buttons_are_parsed() -> None:
    for view, count in (("grid", 4), ("single", 1), ("describe", 4), ("shorten", 5)):
        minted = mint("task_1", view, count, OPERATIONS)  # type: ignore[arg-type]
        actions = [parse(button["customId"]) for button in minted]
        assert minted and None not in actions
        assert len({(a.name, a.index, a.value) for a in actions if a}) == len(actions)
        assert all({"customId", "emoji", "label", "style", "type"} == set(button) for button in minted)
    assert mint("task_1", "none", 0, OPERATIONS) == []
    assert [b["customId"] for b in mint("task_1", "single", 1, ())] == ["MJ::BOOKMARK"]


@pytest.mark.parametrize(
    ("custom_id", "action"),
    [
        ("MJ::JOB::upsample::4::u", Action(name="upsample", index=4, task="u")),
        ("MJ::JOB::reroll::0::u::SOLO", Action(name="reroll", task="u")),
        ("MJ::JOB::pan_up::1::u::SOLO", Action(name="pan", value="up", task="u")),
        ("MJ::Outpaint::100::1::u::SOLO", Action(name="zoom", value="100", task="u")),
        ("MJ::CustomZoom::u", Action(name="custom_zoom", task="u")),
        ("MJ::Inpaint::1::u::SOLO", Action(name="inpaint", task="u")),
        ("MJ::JOB::upsample_v6r1_2x_creative::1::u::SOLO", Action(name="upscale", value="2", task="u")),
        ("MJ::JOB::upsample_v5_4x::1::u::SOLO", Action(name="upscale", value="4", task="u")),
        ("MJ::JOB::animate_low::1::u::SOLO", Action(name="animate", value="low", task="u")),
        ("MJ::Job::PicReader::3", Action(name="text", index=3)),
        ("MJ::JOB::upsample::5::u", None),
        ("MJ::JOB::upsample::0::u", None),
        ("MJ::JOB::upsample::1", None),
        ("MJ::Outpaint::60::1::u::SOLO", None),
        ("U1", None),
    ],
)
def test_published_ids(custom_id: str, action: Action | None) -> None:
    assert parse(custom_id) == action
