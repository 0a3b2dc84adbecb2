"""The thread that asks for disconnects."""

import threading

from backends.serving.cancellation import CancellationWatcher


def test_the_thread_ends_where_the_last_request_ends_while_it_is_closed() -> None:
    """`remove` comes between the signal to close and the moment at which the thread sees it."""
    watcher = CancellationWatcher(interval=0.001)
    asked, released = threading.Event(), threading.Event()

    def is_cancelled() -> bool:
        asked.set()
        assert released.wait(10)
        return False

    watcher.add(1, is_cancelled, lambda: None)
    assert asked.wait(10)
    closing = threading.Thread(target=watcher.close, daemon=True)
    closing.start()
    assert watcher._closed.wait(10)
    watcher.remove(1)
    released.set()
    closing.join(10)
    assert not closing.is_alive()
