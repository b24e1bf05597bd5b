"""The page of devices equals the catalogue of the program."""

from lorascope.costmodel.devices import DEVICES
from support.pages import ROOT


def test_device_page_equals_the_catalogue() -> None:
    page = (ROOT / "docs" / "devices.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `")]
    assert [row[0].strip("`") for row in rows] == [device.name for device in DEVICES.values()]
    for name, memory, bandwidth, *rates, source in rows:
        device = DEVICES[name.strip("`").lower()]
        assert (float(memory), float(bandwidth)) == (device.memory_bytes / 1e9, device.bandwidth / 1e9)
        for dtype, rate in zip(("float32", "bfloat16", "float16"), rates, strict=True):
            assert rate == "-" if dtype not in device.rates else float(rate) * 1e12 == device.rates[dtype]
        assert "NVIDIA" in source


def test_device_help_names_every_device() -> None:
    from lorascope.cli.plan import plan

    listed = " ".join(plan.__doc__.split())
    for device in DEVICES.values():
        assert device.name in listed
