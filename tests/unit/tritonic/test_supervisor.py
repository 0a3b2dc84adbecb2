from tritonic.supervisor import SupervisedComponent


class ScriptedPart:
    """A part that ends when told to."""

    name = "Triton"

    def __init__(self):
        self.status = None
        self.ready = True
        self.starts = 0
        self.cannot_start = None
        self.wrong = None
        self.kept_small = 0

    def fault(self):
        return self.wrong

    def rotate_log(self):
        self.kept_small += 1

    def kill(self):
        self.status, self.ready = 137, False

    def start(self):
        self.starts += 1
        if self.cannot_start:
            raise self.cannot_start
        self.status = None

    def is_ready(self):
        return self.ready

    def poll(self):
        return self.status

    def stop(self):
        raise AssertionError("the supervisor's owner stops the parts")

    def last_log_lines(self):
        return ["loaded", "out of memory"]


class Stage:
    def __init__(self):
        self.part, self.said, self.now = ScriptedPart(), [], 1000.0
        self.supervised = SupervisedComponent(self.part, self.said.append, clock=lambda: self.now)

    def at(self, seconds):
        self.now = 1000.0 + seconds
        self.supervised.step()


def test_nothing_is_done_while_it_runs():
    stage = Stage()
    stage.at(5)
    assert (stage.part.starts, stage.said) == (0, [])


def test_what_ends_is_started_again_after_a_second():
    stage = Stage()
    stage.part.status, stage.part.ready = 1, False
    stage.at(10)
    stage.at(10.9)
    assert stage.part.starts == 0
    stage.at(11)
    assert stage.part.starts == 1
    stage.at(12)
    stage.part.ready = True
    stage.at(14.5)
    assert stage.said == [
        "Triton ended with status 1; it is started again in 1 s. It said: out of memory",
        "Triton is back, 3.5 s after it was started.",
    ]


def test_what_was_killed_is_not_quoted():
    stage = Stage()
    stage.part.status = 137
    stage.at(1)
    assert stage.said == ["Triton was killed by signal 9; it is started again in 1 s."]


def test_delays_grow_while_it_never_gets_ready_and_shrink_after_health():
    stage = Stage()
    stage.part.ready = False
    delays, now = [], 0.0
    for _ in range(6):
        stage.part.status = 1
        stage.at(now := now + 0.1)
        delays.append(float(stage.said[-1].split(" in ")[1].split(" s")[0]))
        stage.at(now := now + delays[-1])
        assert stage.part.status is None
    assert delays == [1, 2, 4, 8, 16, 30]
    stage.part.ready = True
    stage.at(now := now + 1)
    stage.part.status = 1
    stage.at(now + 61)
    assert "in 1 s." in stage.said[-1]


def test_a_part_that_cannot_be_started_is_tried_again():
    stage = Stage()
    stage.part.status, stage.part.cannot_start = 1, OSError(28, "No space left on device")
    stage.at(0)
    stage.at(1)
    assert "could not be started; it is started again in 2 s." in stage.said[-1]
    assert "No space left on device" in stage.said[-1]
    stage.part.cannot_start = None
    stage.at(3)
    stage.at(3.1)
    assert stage.said[-1].startswith("Triton is back")


def test_what_runs_and_does_not_work_is_started_again():
    stage = Stage()
    stage.part.wrong = "lost the process of its model m"
    stage.at(2)
    assert stage.said == ["Triton lost the process of its model m; it is ended and started again."]
    stage.at(2.2)
    assert stage.said[-1] == "Triton was killed by signal 9; it is started again in 1 s."
    stage.part.wrong, stage.part.ready = None, True
    stage.at(3.3)
    stage.at(4)
    assert stage.part.starts == 1 and stage.said[-1].startswith("Triton is back")


def test_its_log_is_looked_at_every_second_whether_it_works_or_not():
    stage = Stage()
    for _ in range(3):
        stage.at(0.5)
    assert stage.part.kept_small == 0
    stage.at(1)
    stage.at(1.2)
    assert stage.part.kept_small == 1
    stage.part.ready, stage.part.status = False, None
    stage.supervised._ready_since = None
    stage.at(2.1)
    assert stage.part.kept_small == 2
