from tritonic.supervisor import SupervisedComponent


class FakeComponent:
    """A component whose state the test sets."""

    name = "Triton"

    def __init__(self):
        self.status: int | None = None
        self.ready = True
        self.starts = 0
        self.start_error: OSError | None = None
        self.current_fault: str | None = None
        self.log_checks = 0

    def fault(self):
        return self.current_fault

    def rotate_log(self):
        self.log_checks += 1

    def kill(self):
        self.status, self.ready = 137, False

    def start(self):
        self.starts += 1
        if self.start_error:
            raise self.start_error
        self.status = None

    def is_ready(self):
        return self.ready

    def poll(self):
        return self.status

    def stop(self):
        raise AssertionError("the owner of the supervisor stops components")

    def last_log_lines(self):
        return ["loaded", "out of memory"]


class Stage:
    def __init__(self):
        self.component, self.now = FakeComponent(), 1000.0
        self.messages: list[str] = []
        self.supervised = SupervisedComponent(self.component, self.messages.append, clock=lambda: self.now)

    def at(self, seconds):
        self.now = 1000.0 + seconds
        self.supervised.step()


def test_a_running_component_is_left_alone():
    stage = Stage()
    stage.at(5)
    assert (stage.component.starts, stage.messages) == (0, [])


def test_a_component_that_ended_is_restarted_after_a_second():
    stage = Stage()
    stage.component.status, stage.component.ready = 1, False
    stage.at(10)
    stage.at(10.9)
    assert stage.component.starts == 0
    stage.at(11)
    assert stage.component.starts == 1
    stage.at(12)
    stage.component.ready = True
    stage.at(14.5)
    assert stage.messages == [
        "Triton ended with status 1; it is started again in 1 s. It said: out of memory",
        "Triton is back, 3.5 s after it was started.",
    ]


def test_the_log_of_a_killed_component_is_not_quoted():
    stage = Stage()
    stage.component.status = 137
    stage.at(1)
    assert stage.messages == ["Triton was killed by signal 9; it is started again in 1 s."]


def test_delays_grow_until_the_component_is_healthy_again():
    stage = Stage()
    stage.component.ready = False
    delays, now = [], 0.0
    for _ in range(6):
        stage.component.status = 1
        stage.at(now := now + 0.1)
        delays.append(float(stage.messages[-1].split(" in ")[1].split(" s")[0]))
        stage.at(now := now + delays[-1])
        assert stage.component.status is None
    assert delays == [1, 2, 4, 8, 16, 30]
    stage.component.ready = True
    stage.at(now := now + 1)
    stage.component.status = 1
    stage.at(now + 61)
    assert "in 1 s." in stage.messages[-1]


def test_a_failed_start_is_retried():
    stage = Stage()
    stage.component.status, stage.component.start_error = 1, OSError(28, "No space left on device")
    stage.at(0)
    stage.at(1)
    assert "could not be started; it is started again in 2 s." in stage.messages[-1]
    assert "No space left on device" in stage.messages[-1]
    stage.component.start_error = None
    stage.at(3)
    stage.at(3.1)
    assert stage.messages[-1].startswith("Triton is back")


def test_a_faulty_component_is_killed_and_restarted():
    stage = Stage()
    stage.component.current_fault = "lost the process of its model m"
    stage.at(2)
    assert stage.messages == ["Triton lost the process of its model m; it is ended and started again."]
    stage.at(2.2)
    assert stage.messages[-1] == "Triton was killed by signal 9; it is started again in 1 s."
    stage.component.current_fault, stage.component.ready = None, True
    stage.at(3.3)
    stage.at(4)
    assert stage.component.starts == 1 and stage.messages[-1].startswith("Triton is back")


def test_the_log_size_is_checked_every_second_in_every_state():
    stage = Stage()
    for _ in range(3):
        stage.at(0.5)
    assert stage.component.log_checks == 0
    stage.at(1)
    stage.at(1.2)
    assert stage.component.log_checks == 1
    stage.component.ready, stage.component.status = False, None
    stage.supervised._ready_since = None
    stage.at(2.1)
    assert stage.component.log_checks == 2
