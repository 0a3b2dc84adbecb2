"""Available memory, from the files that Linux has of the machine and of control groups."""

import psutil

from backends.llm.system_memory import available_memory


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_available_memory_is_the_least_of_machine_and_control_groups(tmp_path):
    write(tmp_path, {"proc/meminfo": "MemTotal: 999 kB\nMemAvailable:    5000 kB\n"})
    assert available_memory(tmp_path) == 5000 * 1024
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/box\n",
            "sys/fs/cgroup/pod/box/memory.max": "max\n",
            "sys/fs/cgroup/pod/box/memory.current": "1000\n",
            "sys/fs/cgroup/pod/box/memory.stat": "inactive_file 10\n",
            "sys/fs/cgroup/pod/memory.max": "3000000\n",
            "sys/fs/cgroup/pod/memory.current": "1000000\n",
            "sys/fs/cgroup/pod/memory.stat": "anon 5\ninactive_file 300000\n",
        },
    )
    assert available_memory(tmp_path) == 2300000


def test_available_memory_in_a_container_and_with_cgroups_v1(tmp_path):
    write(
        tmp_path,
        {
            "proc/meminfo": "MemAvailable:    5000 kB\n",
            "proc/self/cgroup": "5:cpu:/x\n4:memory,hugetlb:/docker/123\n0::/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "2000000\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "500000\n",
            "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 100\n",
        },
    )
    assert available_memory(tmp_path) == 1500100
    write(tmp_path, {"sys/fs/cgroup/memory/memory.limit_in_bytes": "100\n"})
    assert available_memory(tmp_path) == 0


def test_available_memory_of_this_machine_is_positive():
    assert 2**20 < available_memory() <= psutil.virtual_memory().total
