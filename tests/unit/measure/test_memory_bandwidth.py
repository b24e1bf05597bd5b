from pathlib import Path

from lorascope.measure.memory_bandwidth import MemoryTraffic


def domain(root: Path, name: str, text: str) -> Path:
    folder = root / "mon_data" / name
    folder.mkdir(parents=True)
    (folder / "mbm_total_bytes").write_text(text)
    return folder / "mbm_total_bytes"


def test_memory_traffic_sums_all_domains_since_the_first_reading(tmp_path: Path) -> None:
    first = domain(tmp_path, "mon_L3_00", "1000\n")
    domain(tmp_path, "mon_L3_01", "234\n")
    traffic = MemoryTraffic(tmp_path)
    assert traffic.read() == 0
    first.write_text("5000\n")
    assert traffic.read() == 4000
    first.write_text("Unavailable\n")
    assert traffic.read() is None
    first.unlink()
    assert traffic.read() is None


def test_memory_traffic_is_none_without_counters(tmp_path: Path) -> None:
    assert MemoryTraffic(tmp_path / "absent").read() is None
    (tmp_path / "mon_data" / "mon_L3_00").mkdir(parents=True)
    assert MemoryTraffic(tmp_path).read() is None
