import pytest

from devices.catalogue import load_catalogue
from devices.probe import match_profile, parse_cpuinfo, parse_meminfo, read_machine

PROFILES = load_catalogue().values()
PI_5 = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd0b
"""


def profile_id(arch: str, isa: tuple[str, ...], board: str | None = None, *accelerators: str) -> str | None:
    profile = match_profile(PROFILES, arch, isa, board=board, accelerators=accelerators)
    return profile.id if profile else None


def test_a_raspberry_pi_5_is_known_by_its_board_name() -> None:
    cpu, isa = parse_cpuinfo(PI_5)

    assert cpu == "Cortex-A76"
    assert profile_id("aarch64", isa, "Raspberry Pi 5 Model B Rev 1.0") == "raspberry-pi-5"


def test_the_same_cpu_on_another_board_is_a_plain_arm_cpu() -> None:
    assert profile_id("aarch64", parse_cpuinfo(PI_5)[1], "Somebody's board") == "arm64-cpu"
    assert profile_id("aarch64", parse_cpuinfo(PI_5)[1]) == "arm64-cpu"


def test_a_machine_without_the_instruction_set_has_no_profile() -> None:
    assert profile_id("x86_64", ("avx",)) is None
    assert profile_id("riscv64", ()) is None


def test_memory_is_read_in_bytes() -> None:
    assert parse_meminfo("MemFree: 1 kB\nMemTotal:       2048 kB\n") == 2048 * 1024
    assert parse_meminfo("") == 0


def test_what_cannot_be_read_is_unknown_not_guessed(tmp_path) -> None:
    machine = read_machine(tmp_path)

    assert (machine.cpu, machine.isa, machine.board, machine.memory_bytes) == ("unknown", (), None, 0)


def test_the_device_trees_board_name_loses_its_nul(tmp_path) -> None:
    (tmp_path / "proc" / "device-tree").mkdir(parents=True)
    (tmp_path / "proc" / "device-tree" / "model").write_bytes(b"Raspberry Pi 5 Model B\0")

    assert read_machine(tmp_path).board == "Raspberry Pi 5 Model B"


@pytest.mark.parametrize(
    ("isa", "profile"),
    [
        (("asimd", "asimdhp", "fphp"), "jetson-xavier"),
        (("asimd", "asimddp", "asimdhp", "fphp"), "jetson-orin"),
        (("asimd", "asimddp", "asimdhp", "bf16", "fphp", "i8mm", "sve", "sve2"), "jetson-thor"),
    ],
)
def test_a_jetson_is_known_by_its_gpu_and_its_cores(isa, profile) -> None:
    assert profile_id("aarch64", isa, "NVIDIA Jetson", "nvidia-gpu") == profile
    assert profile_id("aarch64", isa, "NVIDIA Jetson") == "arm64-cpu"


def test_a_coral_accelerator_makes_another_class_of_its_host() -> None:
    assert profile_id("aarch64", ("asimd",), None, "edgetpu-v1") == "coral-usb"
    assert profile_id("aarch64", ("asimd",), "Freescale i.MX8MQ Phanbell", "edgetpu-v1") == "coral-dev-board"
    assert profile_id("x86_64", ("avx", "avx2", "fma"), None, "edgetpu-v1") == "coral-usb-x86-64"
    assert profile_id("x86_64", ("avx", "avx2", "fma")) == "x86-64-cpu"


def test_accelerators_are_seen_where_the_kernel_shows_them(tmp_path) -> None:
    device = tmp_path / "sys" / "bus" / "usb" / "devices" / "1-1"
    device.mkdir(parents=True)
    (device / "idVendor").write_text("1a6e\n")
    (device / "idProduct").write_text("089a\n")
    (tmp_path / "proc" / "device-tree").mkdir(parents=True)
    (tmp_path / "proc" / "device-tree" / "compatible").write_bytes(b"nvidia,p3737\0nvidia,tegra234\0")

    assert read_machine(tmp_path).accelerators == ("edgetpu-v1", "nvidia-gpu")


def test_a_board_without_accelerators_has_none(tmp_path) -> None:
    assert read_machine(tmp_path).accelerators == ()
