"""Sizes, private memory, the cgroup's quota, and the settings that are made of them."""

from __future__ import annotations

import os

import pytest

from pulpo_pool.cgroup import Cgroups
from pulpo_pool.errors import ConfigError
from pulpo_pool.memory import parse_size, private_memory, private_memory_over, size_text
from pulpo_pool.settings import load_settings, usable_cpus

MB = 1_000_000


class TestSizes:
    @pytest.mark.parametrize(
        ("text", "size"),
        [
            ("0", 0),
            ("4096", 4096),
            ("200M", 200 * MB),
            ("200MB", 200 * MB),
            ("200 mb", 200 * MB),
            ("1GiB", 1024**3),
            ("1.5k", 1500),
            ("2Ti", 2 * 1024**4),
            ("12b", 12),
        ],
    )
    def test_sizes_as_people_write_them(self, text, size):
        assert parse_size(text) == size

    @pytest.mark.parametrize("text", ["", "M", "-1", "1e9", "200X", "1iB", "1,5G", "9" * 400, "٣"])
    def test_what_is_no_size(self, text):
        with pytest.raises(ValueError):
            parse_size(text)

    @pytest.mark.parametrize(
        ("size", "text"), [(999, "999 bytes"), (31 * MB, "31 MB"), (1_250_000_000, "1.25 GB")]
    )
    def test_sizes_as_people_read_them(self, size, text):
        assert size_text(size) == text

    def test_private_memory_grows_with_what_is_written(self):
        before = private_memory()
        ballast = os.urandom(32 * MB)
        after = private_memory()

        assert len(ballast) == 32 * MB
        assert 30 * MB < after - before < 40 * MB
        assert private_memory(os.getpid()) == pytest.approx(after, abs=5 * MB)
        assert private_memory_over(before) > before
        assert private_memory_over(after + 10 * MB) == 0

    def test_a_process_that_is_gone_has_none(self):
        assert private_memory(2**22 + 1) is None
        assert private_memory_over(1, 2**22 + 1) == 0


class TestCgroups:
    def groups(self, tmp_path, membership, **files):
        (tmp_path / "cgroup").write_text(membership)
        for name, text in files.items():
            path = tmp_path / "mount" / name.replace("__", "/").replace("_DOT_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return Cgroups(tmp_path / "cgroup", tmp_path / "mount")

    @pytest.mark.parametrize(
        ("quota", "cpus"),
        [
            ("max 100000", None),
            ("100000 100000", 1),
            ("150000 100000", 2),
            ("50000 100000", 1),
            ("400000 100000", 4),
            ("garbage", None),
            ("100000 0", None),
            ("", None),
        ],
    )
    def test_the_second_versions_quota_is_rounded_up(self, tmp_path, quota, cpus):
        groups = self.groups(tmp_path, "0::/\n", cpu_DOT_max=quota)

        assert groups.cpus() == cpus

    def test_the_smallest_quota_of_all_groups_above_holds(self, tmp_path):
        groups = self.groups(
            tmp_path,
            "0::/kubepods/pod1/app\n",
            kubepods__pod1__app__cpu_DOT_max="max 100000",
            kubepods__pod1__cpu_DOT_max="200000 100000",
            kubepods__cpu_DOT_max="800000 100000",
        )

        assert groups.cpus() == 2

    @pytest.mark.parametrize(("quota", "cpus"), [("250000", 3), ("-1", None)])
    def test_the_first_version(self, tmp_path, quota, cpus):
        """Of a container that is told its host's path but sees its own directory at the top."""
        groups = self.groups(
            tmp_path,
            "5:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n0::/\n",
            cpu__cpu_DOT_cfs_quota_us=quota,
            cpu__cpu_DOT_cfs_period_us="100000",
        )

        assert groups.cpus() == cpus

    def test_a_system_without_cgroups(self, tmp_path):
        groups = Cgroups(tmp_path / "none", tmp_path)

        assert groups.cpus() is None
        assert groups.oom_kills() is None

    def test_the_usable_cpus_are_the_smaller_of_affinity_and_quota(self, tmp_path):
        half = self.groups(tmp_path, "0::/\n", cpu_DOT_max="50000 100000")
        many = Cgroups(tmp_path / "none", tmp_path)

        assert usable_cpus(half) == 1
        assert usable_cpus(many) == len(os.sched_getaffinity(0))


class TestSettings:
    def load(self, tmp_path, text="", **flags):
        (tmp_path / "pulpo-pool.toml").write_text(text)
        return load_settings(flags, directory=tmp_path, environ={}).settings

    def problems(self, tmp_path, text="", **flags):
        with pytest.raises(ConfigError) as caught:
            self.load(tmp_path, text, **flags)
        return caught.value.problems

    def test_no_limit_is_set_by_default(self, tmp_path):
        settings = self.load(tmp_path)

        assert settings.max_jobs == settings.max_age == settings.min_workers == 0
        assert settings.max_memory == settings.max_memory_hard == 0

    @pytest.mark.parametrize("text", ['workers = "auto"', 'workers = "AUTO"', ""])
    def test_auto_is_one_worker_for_each_usable_cpu(self, tmp_path, text):
        assert self.load(tmp_path, text).workers == usable_cpus()
        assert self.load(tmp_path, "workers = 9", workers="auto").workers == usable_cpus()

    def test_sizes_may_be_words_or_bytes_in_files_and_options(self, tmp_path):
        in_file = self.load(tmp_path, 'max-memory = "200M"\nmax-memory-hard = 1_000_000_000')
        options = self.load(tmp_path, max_memory="4096", max_memory_hard="1GiB")

        assert (in_file.max_memory, in_file.max_memory_hard) == (200 * MB, 1000 * MB)
        assert (options.max_memory, options.max_memory_hard) == (4096, 1024**3)

    @pytest.mark.parametrize("text", ['max-memory = "much"', "max-memory = -1", "max-memory = 1.5"])
    def test_what_is_no_size(self, tmp_path, text):
        [problem] = self.problems(tmp_path, text)

        assert "expected a size such as 200M or 1GiB, or 0 for no limit, got " in problem

    def test_contradictions_are_named_with_both_sides(self, tmp_path):
        lines = self.problems(
            tmp_path,
            'workers = 4\nmax-memory = "2G"\nmax-memory-hard = "1G"\nsoft-time-limit = 3600',
            min_workers="6",
        )

        assert lines == [
            (
                "command line: --min-workers: 6 workers cannot stay in a pool of 4 "
                "(workers, from pulpo-pool.toml: workers)"
            ),
            (
                "pulpo-pool.toml: max-memory: expected less than max-memory-hard "
                "(1 GB, from pulpo-pool.toml: max-memory-hard), got 2 GB"
            ),
            (
                "pulpo-pool.toml: soft-time-limit: expected less than time-limit "
                "(3600 s, from default), got 3600 s"
            ),
        ]

    def test_a_mistake_is_not_also_called_a_contradiction(self, tmp_path):
        [problem] = self.problems(tmp_path, "min-workers = 200", workers="many")

        assert "got 'many'" in problem

    @pytest.mark.parametrize(
        "text",
        [
            "workers = 4\nmin-workers = 4",
            "max-memory = 5",
            "max-memory-hard = 5",
            "max-memory = 5\nmax-memory-hard = 0",
            "soft-time-limit = 9999\ntime-limit = 0",
        ],
    )
    def test_what_is_no_contradiction(self, tmp_path, text):
        assert self.load(tmp_path, text)
