from devices.catalogue import load_catalogue
from devices.probe import match_profile, parse_cpuinfo, parse_meminfo, read_machine

PROFILES = load_catalogue().values()
PI_5 = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd0b
"""


def profile_id(arch: str, isa: tuple[str, ...], board: str | None = None) -> str | None:
    profile = match_profile(PROFILES, arch, isa, board=board)
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
